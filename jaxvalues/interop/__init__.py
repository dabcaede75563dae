"""Export of runs to the formats of transformers and PEFT, and import from transformers' format."""
