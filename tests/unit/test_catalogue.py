"""Pricing by the catalogue, and which catalogue files are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rxoutflow_server.sandbox
from rxoutflow_server.domain.benefit import Category, Line
from rxoutflow_server.domain.catalogue import Catalogue, Drug, DrugFlag
from rxoutflow_server.domain.errors import Reason, Refusal
from rxoutflow_server.reference import ReferenceDataError
from rxoutflow_server.reference.catalogues import COLUMNS, load_catalogue

DEMONSTRATION = Path(rxoutflow_server.sandbox.__file__).parent / "data" / "catalogues"
REGIONS = ("320600", "350200", "350500", "430400")

CODE = "SYNW0000000000000000001"
OTHER_CODE = "SYNW0000000000000000002"
DRUG = Drug(
    drug_code=CODE,
    generic_name="达格列净片",
    generic_group="DAPAGLIFLOZIN-10MG-TAB",
    dosage_form="片剂",
    specification="10mg×14片",
    unit="片",
    price_micro_yuan=4_360_000,
    category=Category.B,
    first_self_pay_bp=1_000,
    limit_price_micro_yuan=4_000_000,
    limited_use="限二线用药",
)
CATALOGUE = Catalogue("350500", "350500-1", [DRUG])

HEADER = ",".join(COLUMNS)
ROW = f"{CODE},达格列净片,DAPAGLIFLOZIN-10MG-TAB,片剂,10mg×14片,片,4.36,B,1000,4,限二线用药,"


def file_with(folder: Path, *rows: str, name: str = "350500.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_line_at_the_ceiling_carries_what_the_catalogue_says() -> None:
    assert CATALOGUE.price(CODE, 4_360_000, quantity=14) == Line(
        14, 4_360_000, Category.B, 1_000, 4_000_000, limited_use_unmet=False, drug_code=CODE
    )


def test_a_price_a_millionth_above_the_ceiling_is_refused_and_the_ceiling_is_named() -> None:
    with pytest.raises(Refusal, match=r"4\.360001 yuan per 片 .* ceiling of 4\.36 yuan") as refused:
        CATALOGUE.price(CODE, 4_360_001, quantity=14)

    assert refused.value.reason is Reason.PRICE_ABOVE_CATALOGUE
    assert refused.value.detail == {"drug_code": CODE, "ceiling_micro_yuan": "4360000"}


def test_a_drug_outside_the_catalogue_is_refused() -> None:
    with pytest.raises(Refusal, match=OTHER_CODE) as refused:
        CATALOGUE.price(OTHER_CODE, 1, quantity=1)

    assert refused.value.reason is Reason.DRUG_NOT_IN_CATALOGUE


@pytest.mark.parametrize(("quantity", "price"), [(0, 1), (1, -1)])
def test_a_figure_out_of_range_is_refused(quantity: int, price: int) -> None:
    with pytest.raises(Refusal) as refused:
        CATALOGUE.price(CODE, price, quantity=quantity)

    assert refused.value.reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(("limited_use", "own_cost"), [("限二线用药", True), (None, False)])
def test_limited_use_counts_only_where_this_catalogue_limits_the_drug(
    limited_use: str | None, own_cost: bool
) -> None:
    drug = Drug(CODE, "n", "g", "f", "s", "片", 1_000, Category.A, limited_use=limited_use)
    line = Catalogue("350500", "1", [drug]).price(CODE, 1, quantity=1, limited_use_unmet=True)

    assert line.is_own_cost is own_cost


def test_a_catalogue_with_one_code_twice_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="used twice"):
        Catalogue("350500", "350500-1", [DRUG, DRUG])


def test_a_file_gives_the_drugs_it_describes(tmp_path: Path) -> None:
    catalogue = load_catalogue(file_with(tmp_path, HEADER, ROW))

    assert list(catalogue) == [DRUG]
    assert catalogue.region_code == "350500"


def test_a_byte_order_mark_from_a_spreadsheet_is_no_fault(tmp_path: Path) -> None:
    assert len(load_catalogue(file_with(tmp_path, "\ufeff" + HEADER, ROW))) == 1


def test_the_version_id_changes_with_any_change_of_the_file(tmp_path: Path) -> None:
    first = load_catalogue(file_with(tmp_path, HEADER, ROW)).version_id
    again = load_catalogue(file_with(tmp_path, HEADER, ROW)).version_id
    other = load_catalogue(file_with(tmp_path, HEADER, ROW.replace("4.36", "4.35"))).version_id

    assert first == again != other
    assert first.startswith("350500-")


@pytest.mark.parametrize(
    ("text", "micro_yuan"),
    [("0.00035", 350), ("0.1", 100_000), ("68.9", 68_900_000), ("0", 0), ("1.000001", 1_000_001)],
)
def test_a_price_is_read_exactly(tmp_path: Path, text: str, micro_yuan: int) -> None:
    catalogue = load_catalogue(file_with(tmp_path, HEADER, ROW.replace("4.36", text)))

    assert catalogue.drug(CODE).price_micro_yuan == micro_yuan


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ("4.36", "", "price_yuan"),
        ("4.36", "4.1234567", "price_yuan"),
        ("4.36", "-1", "price_yuan"),
        ("4.36", "1e3", "price_yuan"),
        ("4.36", "٤", "price_yuan"),
        (",4,", ",x,", "limit_price_yuan"),
        (",B,", ",D,", "category"),
        (",B,", ",A,", "first_self_pay_bp"),
        ("1000", "10001", "first_self_pay_bp"),
        ("1000", "10 %", "first_self_pay_bp"),
        (CODE, CODE[:-1], "drug_code"),
        (CODE, CODE.lower(), "drug_code"),
        ("达格列净片", " ", "generic_name"),
        ("限二线用药,", "限二线用药,NARCOTICS", "flags"),
        ("限二线用药,", "限二线用药,,", "flags"),
        (",限二线用药,", "", "limited_use"),
    ],
)
def test_a_bad_cell_is_refused_with_its_row_and_column(
    tmp_path: Path, old: str, new: str, column: str
) -> None:
    assert old in ROW
    good = ROW.replace(CODE, OTHER_CODE)
    path = file_with(tmp_path, HEADER, good, ROW.replace(old, new, 1))

    with pytest.raises(ReferenceDataError) as refused:
        load_catalogue(path)

    assert refused.value.file == path
    assert refused.value.where == f"row 3, column {column}"


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    path = file_with(
        tmp_path, HEADER, ROW.replace("4.36", "?").replace(",B,", ",D,"), ROW, ROW, "short"
    )

    with pytest.raises(ReferenceDataError) as refused:
        load_catalogue(path)

    rows = {problem.where.partition(",")[0] for problem in refused.value.problems}
    assert rows == {"row 2", "row 3", "row 4", "row 5"}
    assert "row 2, column category" in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        (["drug_code"], "row 1"),
        ([HEADER + ",colour", ROW + ",red"], "row 1"),
        ([HEADER + ",flags", ROW + ","], "row 1"),
        ([HEADER], "row 2"),
        ([HEADER, ROW, '"' + ROW], "row 3"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, rows: list[str], where: str) -> None:
    with pytest.raises(ReferenceDataError) as refused:
        load_catalogue(file_with(tmp_path, *rows))

    assert refused.value.where == where


def test_a_file_not_named_after_a_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceDataError, match="six-digit region code"):
        load_catalogue(file_with(tmp_path, HEADER, ROW, name="xiamen.csv"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "350500.csv"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ReferenceDataError, match="not readable"):
        load_catalogue(path)


PACKED = f"{HEADER},package_unit,units_per_package"


@pytest.mark.parametrize(
    ("cells", "packages"),
    [("盒,14", (2, 2)), (",", (0, 30))],
)
def test_a_quantity_is_whole_packages_and_loose_units_where_packages_are_known(
    tmp_path: Path, cells: str, packages: tuple[int, int]
) -> None:
    catalogue = load_catalogue(file_with(tmp_path, PACKED, f"{ROW},{cells}"))

    assert catalogue.drug(CODE).packages(30) == packages


@pytest.mark.parametrize("cells", ["盒,", ",14", "盒,0", "盒,1.5", "盒,-1"])
def test_a_package_without_its_size_is_refused(tmp_path: Path, cells: str) -> None:
    with pytest.raises(ReferenceDataError, match="row 2, column units_per_package"):
        load_catalogue(file_with(tmp_path, PACKED, f"{ROW},{cells}"))


@pytest.mark.parametrize("lost", ["\n", ",\n", "用药,\n"])
def test_a_file_that_ends_in_the_middle_of_a_line_is_refused(tmp_path: Path, lost: str) -> None:
    path = file_with(tmp_path, HEADER, ROW)
    path.write_text(path.read_text("utf-8").removesuffix(lost), "utf-8")

    with pytest.raises(ReferenceDataError, match="row 2: the file ends in the middle of a line"):
        load_catalogue(path)


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_trailer_that_counts_the_rows_is_no_row(tmp_path: Path, ending: str) -> None:
    assert len(load_catalogue(file_with(tmp_path, HEADER, ROW, f"# rows: 1{ending}"))) == 1


@pytest.mark.parametrize("promised", [0, 2])
def test_a_trailer_that_counts_other_rows_is_refused(tmp_path: Path, promised: int) -> None:
    with pytest.raises(ReferenceDataError, match=f"trailer: {promised} rows are promised, 1 are"):
        load_catalogue(file_with(tmp_path, HEADER, ROW, f"# rows: {promised}"))


@pytest.mark.parametrize("region_code", REGIONS)
def test_the_demonstration_catalogues_are_synthetic_and_cover_every_kind_of_drug(
    region_code: str,
) -> None:
    catalogue = load_catalogue(DEMONSTRATION / f"{region_code}.csv")
    flags = {flag for drug in catalogue for flag in drug.flags}

    assert all(drug.drug_code.startswith("SYN") for drug in catalogue)
    assert flags == set(DrugFlag)
    assert {drug.category for drug in catalogue} == set(Category)
    assert sum(DrugFlag.HERBAL in drug.flags for drug in catalogue) >= 100
    assert len({drug.generic_name for drug in catalogue}) >= 300


def test_the_demonstration_catalogues_are_what_their_list_says_now() -> None:
    script = Path(__file__).parents[2] / ".ci" / "catalogues.py"

    assert subprocess.run([sys.executable, script, "check"], check=False).returncode == 0


def test_the_demonstration_catalogues_differ_in_price_only() -> None:
    codes = [
        [(drug.drug_code, drug.generic_name, drug.category, drug.flags) for drug in catalogue]
        for catalogue in (load_catalogue(DEMONSTRATION / f"{region}.csv") for region in REGIONS)
    ]

    assert codes[1:] == codes[:-1]
    assert len({load_catalogue(DEMONSTRATION / f"{r}.csv").version_id for r in REGIONS}) == 4
