import sys

import numpy as np
import pandas as pd
import pytest

from explorer import cli
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.errors import BadInput
from explorer.lm_eval_io import import_run
from tests.unit.test_evaluations import evaluation


def test_every_row_of_the_book_has_a_price_a_source_and_says_when():
    """The book holds dated facts with sources, and nothing else."""
    book = prices.price_book()

    assert len(book) > 50
    assert (book["usd_per_unit_hour"] > 0).all()
    assert book["date_seen"].str.len().gt(3).all()
    sourced = book["source_url"].fillna(book["source_title"]).fillna(book["vendor_page"])
    assert sourced.notna().all()


@pytest.mark.parametrize(
    ("device_name", "hardware"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA B200", "B200 SXM"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB SXM"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_a_gpu_is_found_by_the_name_its_driver_gives(device_name, hardware):
    """Only this part is offered, cheapest first, whatever the number of processors."""
    offered = prices.suggest_prices(device_name, 16, prices.price_book())

    assert offered
    assert {price.note.split(";")[0] for price in offered} == {hardware}
    rates = [price.usd_per_hour for price in offered]
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    "device_name",
    [
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA A30 MIG 1g.6gb",
        "AMD Instinct MI325X",
        "Intel(R) Arc(TM) B580 Graphics",
        "Apple M2 Max (mps)",
    ],
)
def test_another_part_is_not_priced_as_one_that_looks_like_it(device_name):
    """A part that the book does not know gets no suggestion."""
    assert prices.suggest_prices(device_name, 2, prices.price_book()) == []


def test_a_slice_of_a_gpu_has_its_share_of_the_gpus_price():
    """By the compute slices that it has of seven, and the note says so."""
    whole = prices.suggest_prices("NVIDIA H100 80GB HBM3", 2, prices.price_book())
    offered = prices.suggest_prices("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 2, prices.price_book())

    assert [price.usd_per_hour for price in offered] == pytest.approx(
        [3 / 7 * price.usd_per_hour for price in whole]
    )
    assert f"3/7 of ${whole[0].usd_per_hour:g} for the whole GPU" in offered[0].in_words()


def test_several_providers_stand_side_by_side():
    """The same part, from the cheapest to the dearest."""
    offered = prices.suggest_prices("NVIDIA H100 80GB HBM3", 2, prices.price_book())

    assert {"RunPod", "Lambda", "Nebius", "AWS"} <= {price.provider for price in offered}


@pytest.mark.parametrize(
    ("num_cpus", "instance"), [(2, "cpu-e2_2vcpu-8gb"), (3, "cpu-e2_4vcpu-16gb")]
)
def test_a_processor_is_priced_as_a_machine_of_its_size(num_cpus, instance):
    """A CPU machine is found by its number of processors, or the next size up."""
    offered = prices.suggest_prices("AMD EPYC 7R13", num_cpus, prices.price_book())

    assert offered[0].instance == instance
    assert "undated" in offered[0].in_words()


def test_a_processor_with_graphics_is_priced_as_a_processor():
    """Its record says how many cores it has, which no accelerator's does."""
    offered = prices.suggest_prices(
        "AMD Ryzen 7 5700G with Radeon Graphics (2 cores)", 2, prices.price_book()
    )

    assert offered


def test_a_machine_larger_than_all_of_the_book_has_no_suggestion():
    """Nothing is scaled up or invented."""
    assert prices.suggest_prices("AMD EPYC 9654", 192, prices.price_book()) == []


@pytest.mark.parametrize(
    "wrong", [-1, 0, float("nan"), float("inf"), "2 EUR", "€2", "", None, True]
)
def test_a_price_that_is_none_is_refused_in_one_sentence(wrong):
    """It says that US dollars are expected, and how to write them."""
    with pytest.raises(BadInput, match="usd_per_hour must be US dollars per hour above 0, as in"):
        Price.parse({"usd_per_hour": wrong}, "the price")


@pytest.mark.parametrize(
    ("text", "value"), [("$0.05", 0.05), ("0.05 USD", 0.05), (" 2 ", 2.0), (3, 3.0)]
)
def test_dollars_may_be_written_as_people_write_them(text, value):
    """A dollar sign does no harm."""
    assert Price.parse({"usd_per_hour": text}).usd_per_hour == value


def test_a_written_price_is_read_again(tmp_path):
    """The user's price stays, beside those of other devices, and can be taken away."""
    path = tmp_path / "prices.yaml"
    prices.write_override(path, "box", Price(usd_per_hour=0.05, note="bought"))
    prices.write_override(path, "other", Price(usd_per_hour=2, provider="Cloud"))

    assert prices.read_overrides(path)["box"] == Price(usd_per_hour=0.05, note="bought")
    runs = pd.DataFrame({"device_name": ["box", "third"]})
    assert set(prices.prices_for(runs, tmp_path)) == {"box"}
    prices.write_override(path, "box", None)
    assert set(prices.read_overrides(path)) == {"other"}


def test_a_bare_number_in_the_file_is_a_price(tmp_path):
    """A hand-written `device: 0.05` is enough."""
    path = tmp_path / "prices.yaml"
    path.write_text("box: 0.05\n", encoding="utf-8")

    assert prices.read_overrides(path)["box"].usd_per_hour == 0.05


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("box: -1", "the price of box, line 1, column 6: usd_per_hour must be US dollars"),
        ("[1, 2]", "should map device names to prices"),
        ("a: [", "line 2, column 1: expected YAML"),
        ("box: {usd: 3}", "unknown key usd"),
        (
            "box: {usd_per_hour: 1, date_seen: 2026-13-40}",
            "line 1, column 35: date_seen must be a day that exists, such as .*got '2026-13-40'",
        ),
        ("box: {usd_per_hour: 1, date_seen: 2026-1-5}", "must begin with a date like 2026-11-24"),
    ],
)
def test_a_damaged_price_file_is_named(tmp_path, text, said):
    """The file is left as it is and the sentence says where the fault lies."""
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(BadInput, match=said):
        prices.read_overrides(path)
    with pytest.raises(BadInput):
        prices.write_override(path, "box", Price(usd_per_hour=1))
    assert path.read_text(encoding="utf-8") == text


def test_a_price_needs_a_device():
    """An empty name is no device."""
    with pytest.raises(BadInput, match="name of its device"):
        prices.write_override(prices.BOOK.with_name("prices.yaml"), " ", Price(usd_per_hour=1))


def test_a_run_without_a_device_hides_no_other_device(tmp_path):
    """An import without a device, one that names a GPU but no processors, and a measured run."""
    runs = pd.DataFrame(
        {
            "device_name": [None, "NVIDIA H200", "AMD EPYC (2 cores)"],
            "num_cpus": [np.nan, np.nan, 2.0],
        }
    )

    listed = {name: suggested for name, _, suggested in prices.device_prices(runs, tmp_path)}

    assert set(listed) == {"NVIDIA H200", "AMD EPYC (2 cores)"}
    assert all(listed.values())


def test_a_price_that_was_set_is_listed_beside_an_import(store_root, tmp_path, monkeypatch, capsys):
    """`explorer price box 0.05` in a store whose only run names no device."""
    import_run.import_folder(store_root, evaluation(tmp_path / "out").parent, "x")
    monkeypatch.setattr(sys, "argv", ["explorer", "price", "box", "0.05"])

    with pytest.raises(SystemExit) as stopped:
        cli.main()

    assert stopped.value.code == 0
    assert "box: $0.05 per hour, your own price" in capsys.readouterr().out
