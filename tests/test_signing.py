"""Signatures: known answers, and that nothing but the one genuine spelling of a genuine request is accepted."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.errors import SignatureRejected
from calls.model import Trust
from calls.signing import Encoding, Part, Scheme, sign, verify

SECRET = "test-secret"
NOW_S = 1_739_537_297
BODY = b'{"event":"call.completed","data":{"call_id":"c1"}}'
CALL_ID = b"58bd0d3f-6982-4a6d-911e-1c11fbcc7dca"
BODY_HEX = "92816123baf94954eb46b06ccecf99dc001e1a66cf17ab240ec5c0dc17140acd"
STAMPED_HEX = "7f7002b67aaf60ef2903eda3993c778b336a305953499c1aea3fd6a2a98354ca"

ID_BASE64 = Scheme(
    headers=("synthflow-signature", "http_synthflow_signature"),
    signed=(Part.ID,),
    encoding=Encoding.BASE64,
    trust=Trust.C,
)
PREFIXED = Scheme(
    headers=("x-inboundflow-signature",),
    signed=(Part.TIMESTAMP, b".", Part.BODY),
    encoding=Encoding.HEX,
    forms=("sha256={signature}",),
    timestamp_header="x-inboundflow-timestamp",
    tolerance_s=300,
    trust=Trust.A,
)
EITHER_FORM = Scheme(
    headers=("x-webhook-signature",),
    signed=(Part.BODY,),
    encoding=Encoding.HEX,
    forms=("{signature}", "sha256={signature}"),
    trust=Trust.B,
)
BARE = Scheme(headers=("x-callsync-signature",), signed=(Part.BODY,), encoding=Encoding.HEX, trust=Trust.B)
STAMP_APART = Scheme(
    headers=("x-signature",),
    signed=(Part.TIMESTAMP, b".", Part.BODY),
    encoding=Encoding.HEX,
    timestamp_header="x-timestamp",
    tolerance_s=300,
    trust=Trust.A,
)
STAMP_FIRST = Scheme(
    headers=("x-retell-signature",),
    signed=(Part.BODY, Part.TIMESTAMP),
    encoding=Encoding.HEX,
    forms=("v={timestamp},d={signature}",),
    timestamps_per_second=1000,
    tolerance_s=300,
    trust=Trust.A,
)
STAMP_IN_FORM = Scheme(
    headers=("elevenlabs-signature",),
    signed=(Part.TIMESTAMP, b".", Part.BODY),
    encoding=Encoding.HEX,
    forms=("t={timestamp},v0={signature}",),
    tolerance_s=1800,
    trust=Trust.A,
)
STAMP_LAST = dataclasses.replace(STAMP_IN_FORM, forms=("s={signature};t={timestamp}", "t={timestamp},v0={signature}"))
STANDARD = Scheme(
    headers=("webhook-signature",),
    signed=(Part.ID, b".", Part.TIMESTAMP, b".", Part.BODY),
    encoding=Encoding.BASE64,
    forms=("v1,{signature}",),
    timestamp_header="webhook-timestamp",
    tolerance_s=300,
    trust=Trust.A,
)
SHA512 = dataclasses.replace(STAMP_APART, algorithm="sha512")

Arrived = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Known:
    """A request whose signature was computed elsewhere."""

    name: str
    scheme: Scheme
    headers: dict[str, str]
    secret: str = SECRET
    body: bytes = BODY
    now_s: int = NOW_S
    signed_id: bytes = b""

    @property
    def arrived(self) -> Arrived:
        return [(name.encode(), value.encode()) for name, value in self.headers.items()]


KNOWN = [
    Known(
        "synthflow",
        ID_BASE64,
        {"synthflow-signature": "Gz4A742SDsldvQiAzkg9XvL4IDCQ1IJLYqlvhB3W3bo="},
        signed_id=CALL_ID,
    ),
    Known(
        "inboundflow",
        PREFIXED,
        {
            "x-inboundflow-signature": "sha256=50cba77c456c0c54c2bbfcbddbab52598d9fe4a191fc835736e9cf37fc056dfd",
            "x-inboundflow-timestamp": "1709064000",
        },
        now_s=1_709_064_000,
    ),
    Known("aisync", EITHER_FORM, {"x-webhook-signature": BODY_HEX}),
    Known("callsync", BARE, {"x-callsync-signature": BODY_HEX}),
    Known("vapi", STAMP_APART, {"x-signature": STAMPED_HEX, "x-timestamp": "1739537297"}),
    Known(
        "retell",
        STAMP_FIRST,
        {"x-retell-signature": "v=1700000000000,d=07024cabe7dd8f6d1c6e4a8324ca92c812e6ad4a7ee506c04f7e462e3321823e"},
        secret="test-api-key",
        body=b'{"event":"call_ended"}',
        now_s=1_700_000_000,
    ),
    Known("elevenlabs", STAMP_IN_FORM, {"elevenlabs-signature": f"t=1739537297,v0={STAMPED_HEX}"}),
    Known(
        "standard webhooks",
        STANDARD,
        {"webhook-signature": "v1,VeD2rlijKiG7NqCSaWHMlzkAsUeLcsneKbp7EHS1Pxo=", "webhook-timestamp": "1674087231"},
        secret=base64.b64decode("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3").decode(),
        now_s=1_674_087_231,
        signed_id=b"msg_1",
    ),
]

each_known = pytest.mark.parametrize("known", KNOWN, ids=[known.name for known in KNOWN])
each_scheme = pytest.mark.parametrize(
    "scheme",
    [*(known.scheme for known in KNOWN), STAMP_LAST, SHA512],
    ids=[*(known.name for known in KNOWN), "stamp last", "sha512"],
)


def check(
    known: Known, *, headers: Arrived | None = None, body: bytes | None = None, signed_id: bytes | None = None
) -> int:
    """Verify a known request with something changed; the index of the secret that matched."""
    verified = verify(
        known.scheme,
        (known.secret,),
        known.arrived if headers is None else headers,
        known.body if body is None else body,
        now_s=known.now_s,
        signed_id=known.signed_id if signed_id is None else signed_id,
    )
    return verified.secret_index


def refusal(act: Callable[[], object]) -> tuple[str, str]:
    """The code and the message with which something is refused."""
    with pytest.raises(SignatureRejected) as caught:
        act()
    return caught.value.code, caught.value.message


def refused(
    known: Known, *, headers: Arrived | None = None, body: bytes | None = None, signed_id: bytes | None = None
) -> tuple[str, str]:
    """The code and the message with which a known request is refused when something is changed."""
    return refusal(lambda: check(known, headers=headers, body=body, signed_id=signed_id))


def code_of(known: Known, value: bytes) -> str:
    """The code with which a known request is refused when its signature header holds `value`."""
    (name, _), *rest = known.arrived
    return refused(known, headers=[(name, value), *rest])[0]


def bit_flips(value: bytes) -> Iterator[bytes]:
    for index in range(len(value)):
        for bit in range(8):
            yield value[:index] + bytes([value[index] ^ (1 << bit)]) + value[index + 1 :]


@each_known
def test_a_known_answer_is_what_we_would_send(known: Known) -> None:
    """Signing gives exactly the headers that were computed elsewhere."""
    signed = sign(known.scheme, known.secret, known.body, now_s=known.now_s, signed_id=known.signed_id)
    assert signed == known.headers


@each_known
def test_a_known_answer_is_accepted_with_its_trust(known: Known) -> None:
    """A genuine request is proved, and its proof says how strong it is and which secret matched."""
    verified = verify(
        known.scheme, (known.secret,), known.arrived, known.body, now_s=known.now_s, signed_id=known.signed_id
    )
    assert verified == (known.scheme.trust, 0)


@each_known
def test_no_bit_of_a_header_can_change(known: Known) -> None:
    """Every single changed bit of the signature header, its prefix, and the timestamp is refused."""
    for index, (name, value) in enumerate(known.arrived):
        for changed in bit_flips(value):
            headers = [*known.arrived[:index], (name, changed), *known.arrived[index + 1 :]]
            refused(known, headers=headers)


@each_known
def test_no_bit_of_what_is_signed_can_change(known: Known) -> None:
    """Every single changed bit of a signed body or id is refused as a wrong signature."""
    if Part.BODY in known.scheme.signed:
        for body in bit_flips(known.body):
            code, _ = refused(known, body=body)
            assert code == "signature_wrong"
    if Part.ID in known.scheme.signed:
        for signed_id in bit_flips(known.signed_id):
            code, _ = refused(known, signed_id=signed_id)
            assert code == "signature_wrong"


@each_known
def test_a_longer_or_shorter_body_is_refused(known: Known) -> None:
    """Bytes added before, after, or taken away change what is signed, down to an empty body."""
    if Part.BODY not in known.scheme.signed:
        return
    for body in (b"", known.body[:-1], known.body[1:], known.body + b"\n", b"\xef\xbb\xbf" + known.body):
        assert refused(known, body=body)[0] == "signature_wrong"


def test_only_an_id_is_signed_where_the_scheme_says_so() -> None:
    """Trust C: the same signature holds for any body with that id, which is why it is the weaker trust."""
    assert check(KNOWN[0], body=b"another body") == 0


@each_known
def test_a_truncated_or_extended_signature_is_malformed(known: Known) -> None:
    """Every shorter value, down to one character, and a longer one is refused before anything is computed."""
    value = known.arrived[0][1]
    for length in range(1, len(value)):
        assert code_of(known, value[:length]) == "signature_malformed"
        assert code_of(known, value[length:]) in ("signature_malformed", "signature_wrong")
    for longer in (value + b"0", value + b"=", value + value, value + b"\0", b"0" + value, value + b"," + value):
        assert code_of(known, longer) == "signature_malformed"


@pytest.mark.parametrize("known", [KNOWN[1], KNOWN[3]], ids=["inboundflow", "callsync"])
def test_hex_has_one_spelling(known: Known) -> None:
    """Upper case, blanks, separators and look-alike digits are refused, which a hex decoder might take."""
    value = known.headers[known.scheme.headers[0]]
    digits = value.removeprefix("sha256=")
    prefix = value.removesuffix(digits)
    respelled = [
        digits.upper(),
        digits[:-1] + digits[-1].upper(),
        f" {digits}",
        f"{digits} ",
        f"{digits}\n",
        f"\t{digits}",
        f"0x{digits}",
        " ".join(re.findall("..", digits)),
        ":".join(re.findall("..", digits)),
        f"'{digits}'",
        digits.translate({ord(str(d)): 0xFF10 + d for d in range(10)}),
        digits.translate({ord(str(d)): 0x0660 + d for d in range(10)}),
        base64.b64encode(bytes.fromhex(digits)).decode(),
        bytes.fromhex(digits).decode("latin-1"),
        digits[:32],
        digits + "00",
    ]
    for text in respelled:
        assert code_of(known, (prefix + text).encode()) in ("signature_malformed", "signature_wrong")
    assert code_of(known, value.upper().encode()) in ("signature_malformed", "signature_wrong")
    assert code_of(known, prefix.encode() + b"\xff" * 64) == "signature_wrong"


def test_base64_has_one_spelling() -> None:
    """Missing or more padding, junk, white space, URL-safe letters and spare last bits are refused."""
    signed_id, value = next(
        (str(number).encode(), made)
        for number in range(1000)
        if {"+", "/"}
        <= {*(made := sign(ID_BASE64, SECRET, b"", now_s=0, signed_id=str(number).encode())["synthflow-signature"])}
    )
    known = Known("base64", ID_BASE64, {"synthflow-signature": value}, signed_id=signed_id)
    assert check(known) == 0
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare_bits = value[:42] + alphabet[alphabet.index(value[42]) ^ 1] + "="
    assert base64.b64decode(spare_bits) == base64.b64decode(value), "a decoder takes both"
    respelled = [
        value.rstrip("="),
        value + "=",
        value.translate(str.maketrans("+/", "-_")),
        value.replace("+", "-"),
        value.replace("/", "_"),
        value.replace("+", " "),
        value.swapcase(),
        spare_bits,
        value[:20] + "\n" + value[20:],
        value[:20] + "!" + value[20:],
        f" {value}",
        f"{value} ",
        f"sha256={value}",
        base64.b64decode(value).hex(),
        base64.b32encode(base64.b64decode(value)).decode(),
    ]
    for text in respelled:
        assert code_of(known, text.encode()) in ("signature_malformed", "signature_wrong")


def test_the_prefix_is_required_where_the_scheme_has_one() -> None:
    """InboundFlow writes `sha256=`; the bare digits, another case and another algorithm's name are refused."""
    digits = KNOWN[1].headers["x-inboundflow-signature"].removeprefix("sha256=")
    for prefix in (
        "",
        "SHA256=",
        "Sha256=",
        "sha256:",
        "sha256 =",
        "sha256= ",
        "sha1=",
        "sha512=",
        "=",
        "v1=",
        "sha256==",
    ):
        assert code_of(KNOWN[1], f"{prefix}{digits}".encode()) == "signature_malformed"


def test_the_prefix_is_optional_where_the_scheme_has_two_forms() -> None:
    """AI Sync's own pages show both forms; each is accepted whole, and no third."""
    name = b"x-webhook-signature"
    assert check(KNOWN[2], headers=[(name, f"sha256={BODY_HEX}".encode())]) == 0
    assert check(KNOWN[2], headers=[(name, BODY_HEX.encode())]) == 0
    for prefix in ("SHA256=", "sha256:", "sha1=", "sha256= ", "sha256=sha256="):
        assert code_of(KNOWN[2], f"{prefix}{BODY_HEX}".encode()) == "signature_malformed"


def test_the_prefix_is_refused_where_the_scheme_has_none() -> None:
    """CallSync writes bare hex, so a prefix is another sender's form."""
    assert code_of(KNOWN[3], f"sha256={BODY_HEX}".encode()) == "signature_malformed"


def test_a_dot_of_a_form_stands_for_itself() -> None:
    """What surrounds the holes of a form is compared literally, never as a pattern."""
    scheme = dataclasses.replace(BARE, forms=("v.1+{signature}",))
    known = Known("literal", scheme, {"x-callsync-signature": f"v.1+{BODY_HEX}"})
    assert check(known) == 0
    for text in (f"vx1+{BODY_HEX}", f"v.11{BODY_HEX}", f"v.1{BODY_HEX}"):
        assert code_of(known, text.encode()) == "signature_malformed"


def test_a_malformed_signature_is_explained() -> None:
    """The message shows the forms that are accepted and how long the signature has to be."""
    assert refused(KNOWN[2], headers=[(b"x-webhook-signature", b"abc")]) == (
        "signature_malformed",
        "The signature header does not have the form '{signature}' or 'sha256={signature}' with a signature of 64 "
        "characters (hex); it is 3 characters long.",
    )
    assert refused(KNOWN[0], headers=[(b"synthflow-signature", b"ab")]) == (
        "signature_malformed",
        "The signature header does not have the form '{signature}' with a signature of 44 characters (base64); "
        "it is 2 characters long.",
    )


def test_a_wrong_signature_is_explained_without_the_secret() -> None:
    """The message names the two causes there can be."""
    code, message = refused(KNOWN[3], body=b"{}")
    assert code == "signature_wrong"
    assert message == (
        "The signature matches none of the source's secrets: another secret, or a body changed on the way."
    )


@pytest.mark.parametrize("value", [None, b""])
def test_a_missing_or_empty_signature_header_is_named(value: bytes | None) -> None:
    """The message says which names were looked for and which arrived, in order, so that a proxy's doing shows."""
    headers = [(b"user-agent", b"x"), (b"host", b"y")] + ([] if value is None else [(b"synthflow-signature", value)])
    arrived = "host, user-agent" if value is None else "host, synthflow-signature, user-agent"
    assert refused(KNOWN[0], headers=headers) == (
        "signature_missing",
        f"No signature header: looked for http_synthflow_signature or synthflow-signature; arrived were {arrived}.",
    )


def test_a_request_without_any_header_is_refused() -> None:
    """The message stays a sentence when nothing arrived."""
    assert refused(KNOWN[3], headers=[]) == (
        "signature_missing",
        "No signature header: looked for x-callsync-signature; arrived were none.",
    )


def test_the_message_lists_a_bounded_number_of_headers() -> None:
    """A request with very many headers, or bytes that are no text, makes no endless message and no error."""
    headers = [(f"x-{number:03}".encode(), b"1") for number in range(99)] + [(b"\xff\xfe", b"1")]
    _, message = refused(KNOWN[3], headers=headers)
    assert message.endswith("x-018, x-019.")
    assert message.count(",") == 19


@each_known
def test_equal_repeated_headers_are_one(known: Known) -> None:
    """A proxy that doubles a header does no harm."""
    assert check(known, headers=[*known.arrived, *known.arrived]) == 0


@each_known
def test_repeated_headers_that_differ_are_refused(known: Known) -> None:
    """With a good and another value it is not ours to choose, in whatever order, even if the other is empty."""
    for index, (name, value) in enumerate(known.arrived):
        what = ("signature", "timestamp")[index]
        for other in (b"", value[:-1], value + b" ", b"x"):
            for headers in ([(name, other), *known.arrived], [*known.arrived, (name, other)]):
                assert refused(known, headers=headers) == (
                    f"{what}_ambiguous",
                    f"The {what} header is repeated with different values.",
                )


def test_a_second_name_of_the_header_is_accepted_but_may_not_differ() -> None:
    """Synthflow's header goes by several names; two of them must agree, or a forged twin could hide."""
    value = KNOWN[0].arrived[0][1]
    assert check(KNOWN[0], headers=[(b"http_synthflow_signature", value)]) == 0
    assert check(KNOWN[0], headers=[(b"http_synthflow_signature", value), (b"synthflow-signature", value)]) == 0
    differing = [(b"http_synthflow_signature", b"A" * 43 + b"="), (b"synthflow-signature", value)]
    assert refused(KNOWN[0], headers=differing)[0] == "signature_ambiguous"
    assert refused(KNOWN[0], headers=[(b"synthflow_signature", value)])[0] == "signature_missing"


@each_known
def test_another_secret_is_refused(known: Known) -> None:
    """Longer, shorter, other case, with white space: a secret is taken exactly as it is."""
    for secret in (
        known.secret + "x",
        known.secret[:-1],
        known.secret.upper(),
        f" {known.secret}",
        f"{known.secret}\n",
    ):
        other = dataclasses.replace(known, secret=secret)
        assert refused(other)[0] == "signature_wrong"


def test_a_signature_of_another_algorithm_is_refused() -> None:
    """What is right under SHA-512 is the wrong length for SHA-256, and the reverse."""
    for signer, verifier in ((SHA512, STAMP_APART), (STAMP_APART, SHA512)):
        known = Known("other", verifier, sign(signer, SECRET, BODY, now_s=NOW_S))
        assert refused(known)[0] == "signature_malformed"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_signature_is_that_of_the_standard_library(algorithm: str, encoding: Encoding) -> None:
    """Each algorithm and encoding gives what `hmac` gives, in full length."""
    scheme = dataclasses.replace(BARE, algorithm=algorithm, encoding=encoding)
    mac = hmac.new(b"k\xc3\xa9y", BODY, algorithm).digest()
    expected = mac.hex() if encoding is Encoding.HEX else base64.b64encode(mac).decode()
    assert sign(scheme, "kéy", BODY, now_s=NOW_S) == {"x-callsync-signature": expected}
    assert scheme.signature_length == len(expected)
    arrived = [(b"x-callsync-signature", expected.encode())]
    assert verify(scheme, ("kéy",), arrived, BODY, now_s=NOW_S).trust is Trust.B


@each_known
def test_several_secrets_hold_at_once(known: Known) -> None:
    """While secrets rotate, new and old ones are accepted, and the proof says which it was."""

    def matched(*secrets: str) -> int:
        return verify(
            known.scheme, secrets, known.arrived, known.body, now_s=known.now_s, signed_id=known.signed_id
        ).secret_index

    assert matched(known.secret, "old") == 0
    assert matched("new", known.secret) == 1
    assert matched("new", "newer", known.secret) == 2
    assert refusal(lambda: matched("new", "newer"))[0] == "signature_wrong"


def test_without_a_secret_nothing_is_accepted() -> None:
    """No secret is no proof."""
    code, _ = refusal(lambda: verify(BARE, (), KNOWN[3].arrived, BODY, now_s=NOW_S))
    assert code == "signature_wrong"


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
@each_scheme
def test_an_empty_secret_neither_signs_nor_verifies(scheme: Scheme, empty: str) -> None:
    """Anybody knows the empty secret, so what it signs proves nothing, also where a good secret stands after it."""
    told = ("secret_empty", "A secret of the source is empty, and anybody can sign with it.")
    assert refusal(lambda: sign(scheme, empty, BODY, now_s=NOW_S, signed_id=CALL_ID)) == told
    genuine = sign(scheme, SECRET, BODY, now_s=NOW_S, signed_id=CALL_ID)
    known = Known("empty", scheme, genuine, secret=empty, signed_id=CALL_ID)
    assert refused(known) == told
    rotating = (empty, SECRET)
    assert refusal(lambda: verify(scheme, rotating, known.arrived, BODY, now_s=NOW_S, signed_id=CALL_ID)) == told


def test_a_missing_id_is_refused_where_the_id_is_signed() -> None:
    """The signature of an empty id would be one and the same for every request without an id."""
    forged = base64.b64encode(hmac.digest(SECRET.encode(), b"", "sha256"))
    told = ("id_missing", "There is no id that could be signed.")
    headers = [(b"synthflow-signature", forged)]
    assert refused(KNOWN[0], headers=headers, signed_id=b"") == told
    assert refusal(lambda: verify(ID_BASE64, (SECRET,), headers, BODY, now_s=NOW_S)) == told
    assert refusal(lambda: sign(ID_BASE64, SECRET, BODY, now_s=NOW_S)) == told


@each_scheme
def test_the_window_holds_in_both_directions(scheme: Scheme) -> None:
    """At the very edge a timestamp is accepted, a moment beyond it is refused, older or ahead."""
    if scheme.tolerance_s is None:
        return
    headers = [
        (name.encode(), value.encode())
        for name, value in sign(scheme, SECRET, BODY, now_s=NOW_S, signed_id=CALL_ID).items()
    ]

    def at(now_s: float) -> int:
        return verify(scheme, (SECRET,), headers, BODY, now_s=now_s, signed_id=CALL_ID).secret_index

    edge = scheme.tolerance_s
    for distance in (0, 1, -1, 0.5, edge, -edge):
        assert at(NOW_S + distance) == 0
    for distance in (edge + 0.001, -edge - 0.001, edge + 1, -edge - 1, 31_536_000, -31_536_000):
        with pytest.raises(SignatureRejected) as caught:
            at(NOW_S + distance)
        assert caught.value.code == "timestamp_outside_window"


def test_a_stale_timestamp_is_explained() -> None:
    """The message says how far off the timestamp is, which way, and what to check."""

    def at(now_s: float) -> str:
        return refusal(lambda: verify(PREFIXED, (SECRET,), KNOWN[1].arrived, BODY, now_s=now_s))[1]

    rest = "; 300 s are allowed. Check this machine's clock."
    assert at(1_709_064_360) == f"The signature is right, but its timestamp is 360 s old{rest}"
    assert at(1_709_063_640) == f"The signature is right, but its timestamp is 360 s ahead{rest}"


def test_a_wrong_signature_is_no_matter_of_the_clock() -> None:
    """The clock is looked at only once the signature is right, so a stranger learns nothing of it."""
    stale = dataclasses.replace(KNOWN[1], now_s=0)
    assert refused(stale, body=b"{}")[0] == "signature_wrong"
    assert refused(stale)[0] == "timestamp_outside_window"


def test_without_a_tolerance_any_timestamp_is_accepted() -> None:
    """A source whose clock is known to be wrong can be taken without a window."""
    known = dataclasses.replace(KNOWN[1], scheme=dataclasses.replace(PREFIXED, tolerance_s=None), now_s=0)
    assert check(known) == 0


NOT_DIGITS = [
    "1_709_064_000", " 1709064000", "1709064000 ", "1709064000.0", "+1709064000", "-1709064000", "1e9", "nan", "inf",
    "0x65de3bc0", "1709064000\n", "1,709,064,000", "x", "\u0661\u0667\u0660\u0669\u0660\u0666\u0664\u0660\u0660\u0660",
    "\uff11\uff17\uff10\uff19\uff10\uff16\uff14\uff10\uff10\uff10", "\u00b2", "1" * 17,
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_DIGITS)
def test_a_timestamp_is_digits_only(text: str) -> None:
    """Even rightly signed, another spelling of a number is refused, in either place where a timestamp may stand."""
    stamp = text.encode()
    digits = hmac.digest(SECRET.encode(), stamp + b"." + BODY, "sha256").hex().encode()
    apart = [(b"x-signature", digits), (b"x-timestamp", stamp)]
    assert refusal(lambda: verify(STAMP_APART, (SECRET,), apart, BODY, now_s=1_709_064_000)) == (
        "timestamp_malformed",
        "The timestamp is not a plain number.",
    )
    inside = [(b"elevenlabs-signature", b"t=" + stamp + b",v0=" + digits)]
    code, _ = refusal(lambda: verify(STAMP_IN_FORM, (SECRET,), inside, BODY, now_s=1_709_064_000))
    assert code == "signature_malformed"


def test_a_timestamp_may_have_sixteen_digits() -> None:
    """Microseconds are the longest that anybody signs."""
    for scheme in (STAMP_APART, STAMP_IN_FORM):
        micros = dataclasses.replace(scheme, timestamps_per_second=1_000_000)
        known = Known("micros", micros, sign(micros, SECRET, BODY, now_s=NOW_S))
        assert check(known) == 0
        assert any("1739537297000000" in value for value in known.headers.values())


@pytest.mark.parametrize("arrived", [None, b""])
def test_a_missing_timestamp_header_is_named(arrived: bytes | None) -> None:
    """Where the timestamp has a header of its own and that is absent or empty, the message says so."""
    headers = [KNOWN[4].arrived[0]] + ([] if arrived is None else [(b"x-timestamp", arrived)])
    names = "x-signature" if arrived is None else "x-signature, x-timestamp"
    assert refused(KNOWN[4], headers=headers) == (
        "timestamp_missing",
        f"No timestamp header: looked for x-timestamp; arrived were {names}.",
    )


def test_a_timestamp_inside_the_header_is_the_one_that_is_signed() -> None:
    """Another time beside the signature does not verify, and a header of that name counts for nothing."""
    fresh = f"t={NOW_S + 60},v0={STAMPED_HEX}".encode()
    assert code_of(KNOWN[6], fresh) == "signature_wrong"
    beside = [*KNOWN[6].arrived, (b"x-timestamp", b"1"), (b"timestamp", b"nonsense")]
    assert check(KNOWN[6], headers=beside) == 0


@pytest.mark.parametrize(
    "text",
    [
        f"v0={STAMPED_HEX},t={NOW_S}",
        f"t={NOW_S}, v0={STAMPED_HEX}",
        f"t={NOW_S},v1={STAMPED_HEX}",
        f"t={NOW_S},v0={STAMPED_HEX},v0={STAMPED_HEX}",
        f"t={NOW_S},t={NOW_S},v0={STAMPED_HEX}",
        f"T={NOW_S},v0={STAMPED_HEX}",
        f"t={NOW_S};v0={STAMPED_HEX}",
        f"t={NOW_S}v0={STAMPED_HEX}",
        f"t=,v0={STAMPED_HEX}",
        f"v0={STAMPED_HEX}",
        STAMPED_HEX,
        f"t={NOW_S}",
        "t=",
        ",",
        "{timestamp}{signature}",
        "t={timestamp},v0={signature}",
    ],
)
def test_a_header_with_a_timestamp_has_one_form(text: str) -> None:
    """Other orders, separators, versions and repetitions are refused."""
    assert code_of(KNOWN[6], text.encode()) == "signature_malformed"


def test_a_timestamp_may_stand_after_the_signature_and_in_several_forms() -> None:
    """Each form finds its own timestamp, wherever it stands."""
    made = sign(STAMP_LAST, SECRET, BODY, now_s=NOW_S)
    assert made == {"elevenlabs-signature": f"s={STAMPED_HEX};t={NOW_S}"}
    for value in (f"s={STAMPED_HEX};t={NOW_S}", f"t={NOW_S},v0={STAMPED_HEX}"):
        assert check(Known("last", STAMP_LAST, {"elevenlabs-signature": value})) == 0
    known = Known("last", STAMP_LAST, made)
    for value in (f"s={STAMPED_HEX};t={NOW_S + 1}", f"t={NOW_S + 1},v0={STAMPED_HEX}"):
        assert code_of(known, value.encode()) == "signature_wrong"


def test_milliseconds_are_compared_as_milliseconds() -> None:
    """A timestamp of thirteen digits is not 50,000 years ahead."""
    headers = [(b"x-retell-signature", sign(STAMP_FIRST, SECRET, BODY, now_s=NOW_S)["x-retell-signature"].encode())]
    assert headers[0][1].startswith(b"v=1739537297000,d=")
    assert verify(STAMP_FIRST, (SECRET,), headers, BODY, now_s=NOW_S + 299.9).secret_index == 0
    with pytest.raises(SignatureRejected, match="is 301 s old"):
        verify(STAMP_FIRST, (SECRET,), headers, BODY, now_s=NOW_S + 301)


def test_a_part_of_a_second_counts_in_the_window() -> None:
    """What was signed 299.6 s ago is inside 300 s, although 300.5 s have begun since that second."""
    in_milliseconds = dataclasses.replace(STAMP_FIRST, timestamps_per_second=1)
    made = sign(in_milliseconds, SECRET, BODY, now_s=NOW_S * 1000 + 900)
    headers = [(name.encode(), value.encode()) for name, value in made.items()]
    assert verify(STAMP_FIRST, (SECRET,), headers, BODY, now_s=NOW_S + 300.5).secret_index == 0


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is that of `hmac.compare_digest`, asked with two values of equal length."""
    asked: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert refused(KNOWN[2])[0] == "signature_wrong"
    assert asked == [(BODY_HEX.encode(), BODY_HEX.encode())]


LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"))


@each_scheme
@given(secret=st.text(LETTERS, min_size=1, max_size=40), body=st.binary(max_size=200), now_s=st.integers(0, 2**33))
def test_what_we_sign_we_accept(scheme: Scheme, secret: str, body: bytes, now_s: int) -> None:
    """Any secret, any body, any time, for every kind of scheme; and any other body is refused."""
    headers = [
        (name.encode(), value.encode())
        for name, value in sign(scheme, secret, body, now_s=now_s, signed_id=CALL_ID).items()
    ]
    assert verify(scheme, (secret,), headers, body, now_s=now_s, signed_id=CALL_ID) == (scheme.trust, 0)
    if Part.BODY in scheme.signed:
        with pytest.raises(SignatureRejected):
            verify(scheme, (secret,), headers, body + b"0", now_s=now_s, signed_id=CALL_ID)


@each_scheme
@given(values=st.lists(st.binary(max_size=90), max_size=3), stamp=st.binary(max_size=20))
def test_no_header_breaks_the_check(scheme: Scheme, values: list[bytes], stamp: bytes) -> None:
    """Whatever bytes arrive, the outcome is a refusal with a code, never another error."""
    headers = [(scheme.headers[0].encode(), value) for value in values]
    headers.append(((scheme.timestamp_header or "x-other").encode(), stamp))
    code, message = refusal(lambda: verify(scheme, (SECRET,), headers, BODY, now_s=NOW_S, signed_id=CALL_ID))
    assert code.startswith(("signature_", "timestamp_"))
    assert message.endswith(".")


CONTRADICTIONS = {
    "needs a signature header": {"headers": ()},
    "names headers in other than lower case": {"headers": ("X-Signature",)},
    "needs forms with one {signature} each": {"forms": ()},
    "signs neither a body nor an id": {"signed": (b"constant",), "trust": Trust.C},
    "proves trust B": {"trust": Trust.A},
    "must say where the one signed timestamp stands: in a header of its own, or in every form": {
        "signed": (Part.TIMESTAMP, Part.BODY),
        "trust": Trust.A,
    },
    "speaks of a timestamp that is not signed": {"tolerance_s": 300},
}


@pytest.mark.parametrize(("fault", "change"), CONTRADICTIONS.items(), ids=list(CONTRADICTIONS))
def test_a_scheme_that_contradicts_itself_cannot_be_made(fault: str, change: dict[str, object]) -> None:
    """A slip in a provider's data is found when its module is read, not by the first forged webhook."""
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        dataclasses.replace(BARE, **change)  # type: ignore[arg-type]
    assert str(caught.value) == f"The scheme {fault}: {change.get('headers', BARE.headers)}."


@pytest.mark.parametrize(
    "change",
    [
        {"forms": ("constant",)},
        {"forms": ("{signature}", "constant")},
        {"forms": ("{signature}{signature}",)},
        {"forms": ("t={timestamp},{signature}",)},
        {"forms": ("{signature}", "t={timestamp},{signature}")},
        {"timestamp_header": "x-timestamp"},
        {"timestamp_header": "X-Timestamp"},
        {"signed": (Part.ID,)},
        {"signed": (), "trust": Trust.C},
        {"signed": (Part.TIMESTAMP,), "trust": Trust.C, "timestamp_header": "x-timestamp"},
        {"signed": (Part.BODY, Part.TIMESTAMP), "trust": Trust.B, "timestamp_header": "x-timestamp"},
        {"signed": (Part.BODY, Part.TIMESTAMP), "trust": Trust.A, "timestamp_header": "X-Timestamp"},
        {"signed": (Part.BODY, Part.TIMESTAMP), "trust": Trust.A, "forms": ("{timestamp}{timestamp}{signature}",)},
        {"signed": (Part.BODY, Part.TIMESTAMP), "trust": Trust.A, "forms": ("{timestamp},{signature}", "{signature}")},
        {
            "signed": (Part.BODY, Part.TIMESTAMP),
            "trust": Trust.A,
            "forms": ("{timestamp},{signature}",),
            "timestamp_header": "x-timestamp",
        },
    ],
)
def test_a_scheme_that_leaves_something_open_cannot_be_made(change: dict[str, object]) -> None:
    """Forms without a signature, timestamps in two places or none, and trust that is not earned are refused."""
    with pytest.raises(ValueError, match="The scheme "):
        dataclasses.replace(BARE, **change)  # type: ignore[arg-type]


def test_equal_schemes_are_equal_and_print_as_their_data() -> None:
    """A scheme is a value: made again it is the same, and what is derived from it does not show."""
    again = dataclasses.replace(PREFIXED)
    assert again == PREFIXED
    assert hash(again) == hash(PREFIXED)
    assert again != dataclasses.replace(PREFIXED, tolerance_s=301)
    assert re.findall(r"(\w+)=", repr(again))[:3] == ["headers", "signed", "encoding"]
    assert not hasattr(again, "__dict__")
    assert "_names" not in repr(again)
    assert "_shapes" not in repr(again)


def test_a_scheme_is_written_by_name_and_cannot_be_altered() -> None:
    """Its fields are given by name, and what verifies today verifies the same way tomorrow."""
    with pytest.raises(TypeError):
        Scheme(("x",), (Part.BODY,), Encoding.HEX, Trust.B)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        BARE.tolerance_s = 1  # type: ignore[misc]


def test_a_changed_tolerance_changes_nothing_else() -> None:
    """The door sets InboundFlow's window from the settings."""
    wider = dataclasses.replace(PREFIXED, tolerance_s=3600)
    known = dataclasses.replace(KNOWN[1], scheme=wider, now_s=1_709_064_000 + 3600)
    assert check(known) == 0
    assert refused(dataclasses.replace(known, now_s=1_709_064_000 + 3601))[0] == ("timestamp_outside_window")
