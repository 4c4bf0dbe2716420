"""`amnet names` prints the catalogue."""

from speechbrain_amnet import catalogue, cli


def test_names_prints_the_catalogue(capsys):
    assert cli.main(["names"]) == 0
    assert capsys.readouterr().out == catalogue.plain()
    assert cli.main(["names", "--markdown"]) == 0
    assert capsys.readouterr().out == catalogue.markdown()
