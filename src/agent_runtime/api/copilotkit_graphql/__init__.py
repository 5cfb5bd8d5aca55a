"""The GraphQL contract of CopilotKit up to 1.10.6, at the address of its REST contract.

See docs/reference/copilotkit.md. `serving.answer_graphql` is what a door calls; graphql-core is imported with it.
"""
