"""The heavy contenders: BERT-family models, fine-tuned, frozen or as they come from the Hub."""
