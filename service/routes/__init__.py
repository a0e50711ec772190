"""The routes, one idea a file."""

from service.routes import (
    admin,
    batch,
    cameras,
    galleries,
    glimpses,
    health,
    infer,
    meshes,
    metrics,
    model,
    pages,
    render,
)

# Mounted at `/v1`, which is what the documentation shows, and at `/`: the newest version's.
ROUTERS = (
    *(infer.router, batch.router, render.router),
    *(model.router, meshes.router, cameras.router, galleries.router),
    *(health.router, metrics.router, admin.router),
)

# Instead of all these where a 2D model answers.
GLIMPSE_ROUTERS = (
    *(glimpses.router, galleries.router),
    *(health.router, metrics.router, admin.router),
)

# Mounted at `/` alone: they are about the server, whatever versions it answers.
PAGES = (pages.router,)
