"""What runs on the machine of the person: an embedded PostgreSQL and the processes of `make up`."""
