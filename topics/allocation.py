"""The plan of the built-in list: which fields and subfields there are, how many seeds each field has, and why."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from primer.errors import PrimerError
from primer.section import Section

ALLOCATION = Path(__file__).parent / "allocation.yaml"


class FieldPlan(Section):
    """One field.

    Attributes:
        seeds: How many seeds it should have.
        reason: What they are for.
        subfields: Their groups, in the order of the file.
    """

    seeds: int = Field(ge=1)
    reason: str = Field(min_length=1)
    subfields: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _subfields_are_distinct(self) -> FieldPlan:
        if len(set(self.subfields)) < len(self.subfields):
            raise ValueError("a subfield is listed twice")
        return self


class GroupPlan(Section):
    """Fields that belong together.

    Attributes:
        reason: Why a small model needs them.
        common_sense: Whether it is everyday, physical or social life.
        fields: By name.
    """

    reason: str = Field(min_length=1)
    common_sense: bool = False
    fields: dict[str, FieldPlan] = Field(min_length=1)


class Allocation(Section):
    """The whole plan.

    Attributes:
        least_seeds: Seeds in all, at the least.
        least_fields: Fields, at the least.
        least_subfields: Subfields, at the least.
        largest_field: Largest share of the seeds that one field may have.
        least_common_sense: Smallest share of the groups marked `common_sense`, together.
        groups: By name.
    """

    least_seeds: int
    least_fields: int
    least_subfields: int
    largest_field: float
    least_common_sense: float
    groups: dict[str, GroupPlan]

    def fields(self) -> dict[str, FieldPlan]:
        """Every field's plan, by name."""
        return {name: plan for group in self.groups.values() for name, plan in group.fields.items()}


def load_allocation(path: Path = ALLOCATION) -> Allocation:
    """Read the plan.

    Raises:
        PrimerError: If the file is missing or does not follow the schema.
    """
    try:
        return Allocation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PrimerError(f"{path} cannot be read: {error}", "Install Primer again, or restore the file.") from None
    except (ValidationError, yaml.YAMLError) as error:
        raise PrimerError(f"{path} is no plan of topic seeds: {error}", "Mend the file, or restore it.") from None
