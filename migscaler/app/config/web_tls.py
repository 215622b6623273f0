"""From `tls_server_config` to a TLS context of Python's ssl, with a finding for each obstacle."""

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import Protocol

from migscaler.app.config.web_expiry import time_problem
from migscaler.app.config.web_model import CIPHERS, SAFE_CLIENT_AUTH, TlsSection
from migscaler.app.config.yaml_text import Path as YamlPath

_SECTION = "tls_server_config"


class Book(Protocol):
    """Takes findings and reads the files that keys name."""

    def wrong(self, path: YamlPath, problem: str, remedy: str) -> None:
        """Keep a finding."""

    def doubt(self, path: YamlPath, problem: str, remedy: str) -> None:
        """Keep a warning."""

    def content(self, key: str, name: str) -> bytes | None:
        """Return a file's content, None (and a finding) if it can't be read."""


def wants_tls(section: TlsSection) -> bool:
    """Say whether anything of TLS is asked for; then a certificate must be there too.

    exporter-toolkit serves plain HTTP where only e.g. min_version is set; that is never meant.
    """
    return bool(section.model_fields_set)


def names_clients(section: TlsSection) -> bool:
    """Say whether every client has to prove a certificate."""
    return section.client_auth_type == SAFE_CLIENT_AUTH


def build_tls(section: TlsSection, book: Book) -> ssl.SSLContext | None:
    """Return a context for new connections, None where findings tell why there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    # Sessions are not resumed: a client that was shut out must not come back by an old ticket.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    _set_versions(context, section, book)
    _set_ciphers(context, section, book)
    _ask_clients(context, section, book)
    loaded = _load_pair(context, section, book)
    return context if loaded else None


def _set_versions(context: ssl.SSLContext, section: TlsSection, book: Book) -> None:
    """Bound the protocol versions."""
    if section.min_version > section.max_version:
        book.wrong((_SECTION, "min_version"), "is newer than max_version", "exchange the two")
        return
    context.minimum_version = section.min_version
    context.maximum_version = section.max_version


def _set_ciphers(context: ssl.SSLContext, section: TlsSection, book: Book) -> None:
    """Restrict TLS 1.2 to the suites named; those of TLS 1.3 can't be chosen, in Go neither."""
    if not section.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not section.cipher_suites:
        return
    names = [CIPHERS[name] for name in section.cipher_suites if name in CIPHERS]
    if not names and section.max_version is ssl.TLSVersion.TLSv1_2:
        book.wrong((_SECTION, "cipher_suites"), "none of them is of TLS 1.2", "add one that is")
    elif not names:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    else:
        try:
            context.set_ciphers("@SECLEVEL=2:" + ":".join(names))
        except ssl.SSLError:
            where = (_SECTION, "cipher_suites")
            book.wrong(where, "OpenSSL here has none of them", "name others, or remove the key")


def _ask_clients(context: ssl.SSLContext, section: TlsSection, book: Book) -> None:
    """Have clients verified by the CA named, and by no other: not by those the system trusts."""
    text = section.client_ca.encode() if section.client_ca is not None else None
    key = "client_ca"
    if section.client_ca_file is not None:
        key, text = "client_ca_file", book.content("client_ca_file", section.client_ca_file)
    given = section.client_ca is not None or section.client_ca_file is not None
    verifies = section.client_auth_type in (SAFE_CLIENT_AUTH, "VerifyClientCertIfGiven")
    if given and not verifies:
        problem = "a client CA without client_auth_type verifies nobody"
        book.wrong((_SECTION, key), problem, f"add client_auth_type: {SAFE_CLIENT_AUTH}")
    if verifies and not given:
        problem = "whose certificates are valid is not said"
        book.wrong((_SECTION, "client_auth_type"), problem, "add client_ca_file")
    _check_names(section, book)
    if text is not None and _adds_authorities(context, text):
        # An intermediate authority alone is enough, as for Go's clients of the toolkit.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_mode = ssl.CERT_REQUIRED if names_clients(section) else ssl.CERT_OPTIONAL
    elif text is not None:
        book.wrong((_SECTION, key), "holds no certificate in PEM", "give the CA's certificate")


def _check_names(section: TlsSection, book: Book) -> None:
    """Alternative names count only where every client shows a certificate."""
    if section.client_allowed_sans is None:
        return
    where = (_SECTION, "client_allowed_sans")
    if not names_clients(section):
        remedy = f"add client_auth_type: {SAFE_CLIENT_AUTH}"
        book.wrong(where, "clients may come without a certificate", remedy)
    elif not section.client_allowed_sans:
        book.wrong(where, "an empty list lets nobody in", "name some, or remove the key")


def _adds_authorities(context: ssl.SSLContext, text: bytes) -> bool:
    """Trust the certificates of a PEM text; say whether there was one.

    Bundles name authorities in their own script between the certificates; ssl takes ASCII alone.
    """
    plain = text.decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", "?")
    try:
        context.load_verify_locations(cadata=plain)
    except (ssl.SSLError, ValueError):
        return False
    return bool(context.get_ca_certs()) or context.cert_store_stats()["x509"] > 0


def _load_pair(context: ssl.SSLContext, section: TlsSection, book: Book) -> bool:
    """Load certificate and key; both are read first, so that they are judged as one pair."""
    cert = _part(section.cert_file, section.cert, "cert", book)
    key = _part(section.key_file, section.key, "key", book)
    if cert is None or key is None:
        return False
    with _in_memory(cert) as cert_path, _in_memory(key) as key_path:
        try:
            # Without a password given, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(cert_path, key_path, password="")
        except (ssl.SSLError, OSError) as error:
            book.wrong(*_pair_words(section, error, cert, key))
            return False
        # A context of its own: ours may ask for clients' certificates.
        alone = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        alone.load_cert_chain(cert_path, key_path, password="")
    problem = time_problem(cert, alone)
    if problem is not None:
        where = (_SECTION, "cert_file" if section.cert_file is not None else "cert")
        book.doubt(where, f"the certificate {problem}: clients refuse it", "renew it")
    return True


def _part(name: str | None, text: str | None, key: str, book: Book) -> bytes | None:
    """Return certificate or key; as with the toolkit, a file counts before a text."""
    if name is not None:
        return book.content(f"{key}_file", name)
    if text is not None:
        return text.encode()
    book.wrong((_SECTION,), f"TLS needs {key}_file", f"add {key}_file, a path beside this file")
    return None


def _pair_words(
    section: TlsSection, error: Exception, cert: bytes, key: bytes
) -> tuple[YamlPath, str, str]:
    """Return place, problem and remedy of a pair that OpenSSL refuses."""
    reason = getattr(error, "reason", None) or str(error)
    key_name = "key_file" if section.key_file is not None else "key"
    cert_name = "cert_file" if section.cert_file is not None else "cert"
    if b"ENCRYPTED" in key:
        return (_SECTION, key_name), "the key has a passphrase", "give it without (openssl pkey)"
    if reason == "KEY_VALUES_MISMATCH":
        problem = "the key does not belong to the certificate"
        return (_SECTION, key_name), problem, "give the pair that was made together"
    if not _adds_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert):
        return (_SECTION, cert_name), "is no certificate in PEM, or not all of it", "give it whole"
    if reason.startswith("[SSL] PEM lib"):  # Python's words for a text that OpenSSL can't read
        return (_SECTION, key_name), "is no key in PEM, or not all of it", "give it whole"
    return (_SECTION, cert_name), f"OpenSSL refuses the pair: {reason}", "make both anew"


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give content a path without writing it to a disk: `load_cert_chain` takes only paths."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
