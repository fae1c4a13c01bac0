"""The proof that what was saved is what was trained, in a fresh process without Unsloth.

`python -m job.train.verify` loads base, adapter and merged weights the way their users will, with
plain transformers and PEFT, and compares logits on a few training rows. It also answers the
prompts: before with the base, after with what is published.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from job.channel import Channel, run_child
from job.errors import InternalError
from job.train.models import free, load, place, with_adapter

# How far the logits of the saved merged weights may be from those of base + adapter, as relative
# root mean square: this much, or twice what a right merge of this very adapter differs. The latter
# is measured: PEFT merges in memory, and the sum is rounded to the 16 bits in which it is saved.
# That alone can be more than the fixed share (seen: 0.021, on a small model trained for a few
# steps), and on a GPU a mixture model routes some tokens to other experts for a rounding.
ROUNDING = 0.02
NOISE_FACTOR = 2.0
# How far a saved tensor may be from W + BA rounded to 16 bits, as a share of what that differs
# from W. A right merge is nearly exact here, whatever the model's arithmetic does to its logits.
WEIGHT_ERROR = 0.1
AGREEMENT_TOKENS = 32  # greedy tokens of adapter and merged model that are compared for each prompt


def main(channel: Channel) -> None:
    """Wait for the request and do it. It holds `spec`, `model`, `adapter`, `merged` (or null),
    `probe` (a file of token ids) and `template_date`."""
    import torch
    import transformers
    from transformers import AutoConfig

    transformers.utils.logging.disable_progress_bar()
    channel.emit("ready")
    request = channel.receive()

    from job.spec import read_spec
    from job.train.sample import Sampler

    spec = read_spec({"JOB_SPEC": json.dumps(request["spec"])})
    torch.manual_seed(spec.seed)
    probe = json.loads(Path(request["probe"]).read_text(encoding="utf-8"))
    sampler = Sampler(
        spec, Path(request["model"]), request["template_date"], request.get("efforts", [])
    )

    channel.emit("phase", phase="verify", message="loading base and adapter with PEFT")
    device = place(Path(request["model"]), spec.device)
    base = load(Path(request["model"]), device)
    base_logits = logits(base, probe)
    before = sampler.answers(base)
    tuned = with_adapter(base, Path(request["adapter"]))
    tuned_logits = logits(tuned, probe)
    greedy = sampler.greedy(tuned, AGREEMENT_TOKENS)
    require_finite_and_changed(base_logits, tuned_logits)
    if request["merged"] is None:
        after = sampler.answers(tuned)
        report: dict[str, Any] = {"compared": "adapter"}
    else:
        weights = compare_weights(tuned, Path(request["merged"]))
        tuned.merge_adapter()
        round_to(tuned, AutoConfig.from_pretrained(request["merged"]).dtype)
        noise = relative(logits(tuned, probe), tuned_logits)
        del base, tuned
        free()
        channel.emit("phase", phase="verify", message="loading the merged weights")
        merged = load(Path(request["merged"]), device, strict=True)
        report = compare(base_logits, tuned_logits, logits(merged, probe), noise)
        report |= weights
        report["greedy_agreement"] = agreement(greedy, sampler.greedy(merged, AGREEMENT_TOKENS))
        after = sampler.answers(merged)
    channel.emit("verified", merge=report, samples=sampler.samples(before, after))


def compare_weights(tuned: Any, folder: Path) -> dict[str, Any]:
    """Hold each merged tensor that has an adapter against W + BA, computed here from the parts.

    Args:
        tuned: base + adapter, not merged.
        folder: the merged weights.

    Raises:
        InternalError: a tensor is missing, or is not W + BA in its own dtype.
    """
    import torch
    from safetensors import safe_open

    files = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
    where = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a dict
    worst, count = 0.0, 0
    for name, module in tuned.get_base_model().named_modules():
        if not getattr(module, "lora_A", None):
            continue
        parameter = getattr(module, "parameter_name", "weight")
        key = f"{name.replace('.base_layer', '')}.{parameter}"
        if key not in where:
            raise InternalError(f"The merged weights lack {key}.")
        layer = module.get_base_layer()
        with torch.inference_mode():
            weight = getattr(layer, parameter).detach().float()
            saved = where[key].get_tensor(key)
            expected = weight + module.get_delta_weight("default").float()
            expected = expected.to(saved.dtype).float()
            change = float((expected - weight).norm())
            error = float((saved.to(weight.device).float() - expected).norm())
        if error > WEIGHT_ERROR * change:
            raise InternalError(
                f"The merged {key} is not base + adapter: off by {error:.3g}, where training "
                f"changed {change:.3g}. The merged weights were not published."
            )
        worst, count = max(worst, error / change if change else 0.0), count + 1
    return {"merged_tensors": count, "largest_weight_error": worst}


def logits(model: Any, rows: list[list[int]]) -> Any:
    """Logits of each row, concatenated: float32 on the CPU, shape (tokens of all rows, vocab)."""
    import torch

    parts = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row], device=model.device)
            parts.append(model(input_ids=ids).logits[0].float().cpu())
    return torch.cat(parts)


def round_to(model: Any, dtype: Any) -> None:
    """Round every weight to what `dtype` can hold; it keeps the type in which it is computed."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).to(parameter.dtype)


def relative(a: Any, b: Any) -> float:
    """Root-mean-square of a - b over that of b."""
    return float((a - b).norm() / b.norm())


def require_finite_and_changed(base: Any, tuned: Any) -> None:
    """Raise InternalError unless the adapter gives finite logits that differ from the base's."""
    if not bool(tuned.isfinite().all()):
        raise InternalError("The saved adapter gives logits that are not finite.")
    if relative(tuned, base) == 0.0:
        raise InternalError("The saved adapter changes nothing: its logits are the base model's.")


def compare(base: Any, tuned: Any, merged: Any, noise: float) -> dict[str, Any]:
    """Hold the merged model's logits against base + adapter and against the base.

    Args:
        noise: relative difference between base + adapter and the same merged in memory and
            rounded as it is saved.

    Raises:
        InternalError: they are not finite, further from base + adapter than rounding and noise
            explain, or not nearer to it than the base is (as when the merge kept the base, or
            when the training is smaller than the rounding to 16 bits).
    """
    if not bool(merged.isfinite().all()):
        raise InternalError("The merged weights give logits that are not finite.")
    error, change = relative(merged, tuned), relative(base, tuned)
    tolerance = max(ROUNDING, NOISE_FACTOR * noise)
    report = {
        "compared": "merged with base + adapter",
        "relative_error": error,
        "relative_noise": noise,
        "relative_change_by_training": change,
        "max_logit_difference": float((merged - tuned).abs().max()),
        "tolerance": tolerance,
    }
    if error > tolerance:
        raise InternalError(
            f"The merged weights do not reproduce base + adapter: relative logit error {error:.4f},"
            f" tolerance {tolerance:.4f}. The merged weights were not published."
        )
    if error >= change:
        raise InternalError(
            f"The merged weights are as near to the base as to the trained model (error {error:.2e}"
            f", change by training {change:.2e}). The merged weights were not published."
        )
    return report


def agreement(first: list[list[int]], second: list[list[int]]) -> dict[str, int]:
    """How many prompts get the same greedy tokens, of how many."""
    same = sum(a == b for a, b in zip(first, second, strict=True))
    return {"same": same, "of": len(first), "tokens": AGREEMENT_TOKENS}


if __name__ == "__main__":
    run_child(main)
