"""When each tracked account is polled next: what is known of its rate, and how a budget of polls is shared out."""
