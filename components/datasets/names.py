"""Names of folders that mean good pictures in the languages of the shop floor; they are asked about, never guessed."""

import re
import unicodedata

# Without case, accents, dots and blanks: O.K., i.O. and in Ordnung are ok, io and inordnung.
_GOOD = """
    good ok okay okey okeh goods normal normals normality pass passed passing fine clean nominal accept accepted
    acceptable conforming conformant compliant defectfree nodefect nodefects faultfree flawless intact perfect healthy
    undamaged nonanomalous nonanomaly noanomaly nondefect nondefective nondefects okparts goodparts golden
    gut gute guter gutes gutteil gutteile io inordnung iordnung einwandfrei fehlerfrei fehlerlos anomaliefrei
    bon bons bonne bonnes bien conforme conformes correct corrects sansdefaut sain sains
    bueno buenos buena buenas correcto correctos correcta correctas sindefecto sindefectos aceptado
    bom bons boa boas semdefeito semdefeitos aprovado aprovados aprobado aprobados
    buono buoni buona buone bene conformi senzadifetti
    goed goede goedgekeurd foutloos akkoord
    bra godkand godkant felfri god gode godt godkjent godkendt fejlfri feilfri hyva hyvat hyvaksytty virheeton
    dobry dobre dobra dobri dobro dobar dobr wporzadku vporadku poprawny poprawne prawidlowy prawidlowe bezwad
    bezvad bezvady vyhovujici jo jok megfelelo hibatlan bun buna bune bine conform
    iyi saglam hatasiz kusursuz uygun gecti kalo kala baik bagus tot
    horosij horosie norma godnyj godnye
    хорошии хорошо хорошие хорошая норма годныи годные годен исправныи правильно добрии добрі добър καλο καλα καλή
    良品 合格 合格品 正常 正常品 良 良好 好 好品 优良 無欠陥 無缺陷 无缺陷 ok品 良い 양품 정상 합격
    جيد سليم תקין טוב अच्छा ดี
"""
_BAD = frozenset({
    "bad", "ng", "nok", "notok", "notgood", "nogood", "nio", "defect", "defects", "defective", "fail", "failed",
    "reject", "rejects", "rejected", "scrap", "faulty", "anomaly", "anomalies", "anomalous", "abnormal", "schlecht",
    "ausschuss", "defekt", "fehler", "fehlerhaft", "mauvais", "malo", "malos", "cattivo", "slecht",
    "不良", "不良品", "異常", "异常", "缺陷",
})  # fmt: skip
# Words beside them that change nothing: ok_parts, good images 2, Gutteile Bilder.
_PLAIN = """
    part parts piece pieces image images img imgs picture pictures pic pics photo photos foto fotos sample samples
    product products item items unit units data set class only all new old test train training
    teil teile bild bilder stuck stucke muster piece pieces echantillon pieza piezas imagen imagenes muestra muestras
    imagem imagens peca pecas pezzo pezzi immagine immagini
"""
PLAIN = frozenset(_PLAIN.split())


def sounds_good(name: str) -> bool:
    """Whether a folder called *name* is likely to hold good pictures."""
    words = re.findall(r"[^\W\d_]+", plain(name))
    if not words:
        return False
    joined = "".join(words)
    rest = [word for word in words if word not in PLAIN]
    return joined in _FOLDED or (bool(rest) and ("".join(rest) in _FOLDED or all(word in _FOLDED for word in rest)))


def plain(name: str) -> str:
    """*name* without case and accents."""
    split = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z])", " ", name)).casefold()
    kept = "".join(c for c in split if not unicodedata.combining(c) or unicodedata.name(c, "").startswith("DEVANAGARI"))
    return unicodedata.normalize("NFC", kept.replace("ı", "i").replace("ł", "l").replace("ø", "o"))


def sounds_bad(name: str) -> bool:
    """Whether a folder called *name* is likely to hold defects of no further kind."""
    return "".join(re.findall(r"[^\W\d_]+", plain(name))) in _BAD


_FOLDED = frozenset(plain(name) for name in _GOOD.split())
