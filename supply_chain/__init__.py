"""What is installed with trainkit: the lock files as a bill of materials, and a look-up of known vulnerabilities."""
