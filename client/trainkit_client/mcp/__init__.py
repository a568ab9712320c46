"""MCP server of trainkit: a few tools with small answers, by which an agent trains, diagnoses and improves models."""
