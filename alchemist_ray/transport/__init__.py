"""The protocol over sockets: blocking for clients and workers, asyncio for the driver."""
