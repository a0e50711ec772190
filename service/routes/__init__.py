"""The routes, one idea a file."""

from service.routes import admin, batch, health, infer, metrics, model, pages

# Mounted at `/v1`, which is what the documentation shows, and at `/`: the newest version's.
ROUTERS = (
    *(infer.router, batch.router, model.router),
    *(health.router, metrics.router, admin.router),
)

# Mounted at `/` alone: they are about the server, whatever versions it answers.
PAGES = (pages.router,)
