from fastapi import APIRouter

from prefactor_emulator.storage.inspection import Inspection


def page_router(inspection: Inspection) -> APIRouter:
    return APIRouter()
