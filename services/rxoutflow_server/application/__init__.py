"""What the exchange can be asked to do: one function per command.

A command is a synchronous function of a transaction. It verifies what was signed, decides by the
domain, stores the evidence and the new state, and returns the answer; the store commits before
anybody hears it. Commands take and return messages of the contract, because those are the language
that regions share; the domain below them never sees one.

``home``, ``payer`` and ``dispensing`` are the three roles of a region. They share no records, even
when one region plays all three: they speak through the same gateways and events as regions do.
"""
