"""The same web application on aiohttp.web, in one process."""
