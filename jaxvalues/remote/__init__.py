"""Language models that are served elsewhere, at any endpoint of the OpenAI format: requests, answers, their store."""
