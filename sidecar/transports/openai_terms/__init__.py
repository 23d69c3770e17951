"""The words that OpenAI's wires have in common: names of models and languages, errors, speakers."""
