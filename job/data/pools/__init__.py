"""Sources as pools of tokenised rows on disk: in parallel, in order, made once."""
