"""A web application on FastAPI: four workers, one account."""
