"""What to request next of an account, and what each response proves. Pure: nothing here does any I/O."""
