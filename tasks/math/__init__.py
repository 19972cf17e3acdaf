"""Mathematics problems with a final answer, such as GSM8K and MATH."""
