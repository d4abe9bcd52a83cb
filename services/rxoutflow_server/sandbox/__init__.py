"""The sandbox: a runnable demonstration with synthetic actors, drugs and unverified tariffs.

Nothing in here may reach a production deployment: ``data/`` says what each file is.
"""
