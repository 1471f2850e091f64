"""The generated pages of docs/, made from the schema and the registries."""
