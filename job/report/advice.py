"""What to do first after a failure, by exit code. One or two steps each, most likely one first."""

from __future__ import annotations

ADVICE: dict[int, str] = {
    64: "Run `python entrypoint.py --help`; the commands and their arguments are listed there.",
    65: "Look at the rows named above in the dataset. `python entrypoint.py check` reads all rows "
    "again without training. A wrong format is named with ?format= on the source.",
    66: "Check the spelling and the revision. A private Hub repository looks like a missing one "
    "to a token that may not read it.",
    69: "Start the job again on another host. If it fails the same way there, check that the "
    "container sees a GPU (`nvidia-smi`) and that its driver supports CUDA 12.8.",
    70: "This is a bug of the job or of a library. What was saved before it is kept. The log's "
    "last lines and this page's versions are what a bug report needs.",
    71: "Give the container more disk or memory: `python entrypoint.py check` prints what the job "
    "needs. Then start it again with the same spec.",
    73: "Another run has this name at the destination. Choose another JOB_NAME, or leave it out: "
    "then the name follows from the spec.",
    74: "Repair the destination, then start the job again with the same spec: it only uploads what "
    "is missing. All files are kept in the run's folder under JOB_WORK_DIR.",
    75: "Start the job again with the same spec, after the end of a budget with a higher one; it "
    "goes on from its newest checkpoint. Nothing was published as finished.",
    77: "Check the token or keys: they must be set, not expired, and allowed to read the sources "
    "and to write to the destination. A gated model also wants its terms accepted on the Hub.",
    78: "Correct the variables named above; the README has the table of all of them.",
    81: "Halve JOB_MAX_SEQ_LENGTH, or set JOB_MICRO_BATCH_SIZE=1, or set JOB_PRECISION=4bit; or "
    "take a GPU with more memory.",
    82: "Halve JOB_LEARNING_RATE and raise JOB_WARMUP_STEPS. If the loss was never finite, look "
    "for broken rows in the dataset.",
}
