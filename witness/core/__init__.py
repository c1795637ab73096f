"""The trusted process: it holds the keys, the state and the judgement."""
