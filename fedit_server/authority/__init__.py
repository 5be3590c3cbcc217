"""The enrolment authority, in the server's process or on a machine of its own: who is a member, and the log of it."""
