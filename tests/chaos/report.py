"""What a chaos run comes to: figures, and what was wrong."""

from dataclasses import dataclass, field

MOST_SHOWN = 10


@dataclass
class Report:
    """Figures of a run, by their names in the table, and its violations in words."""

    title: str
    figures: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a figure."""
        self.figures[name] = self.figures.get(name, 0) + number

    def require(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violations.append(otherwise)

    def add(self, other: "Report") -> None:
        """Add another run's figures and violations."""
        for name, number in other.figures.items():
            self.count(name, number)
        self.violations += other.violations

    def __str__(self) -> str:
        lines = [f"{self.title}: {len(self.violations)} violations"]
        lines += [f"  {name:<44}{number:>12,}" for name, number in self.figures.items()]
        lines += [f"  ! {violation}" for violation in self.violations[:MOST_SHOWN]]
        if len(self.violations) > MOST_SHOWN:
            lines.append(f"  ! and {len(self.violations) - MOST_SHOWN:,} more")
        return "\n".join(lines)
