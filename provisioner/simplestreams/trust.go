package simplestreams

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Keyring holds the keys that may sign a mirror.
type Keyring struct{ keys openpgp.EntityList }

// MaxKeyring bounds a keyring; Ubuntu's has some kilobytes.
const MaxKeyring = 1 << 20

// ReadKeyring reads public keys as gpg exports them, binary or in armour.
func ReadKeyring(raw []byte) (ring Keyring, err error) {
	defer noPanic(&err)
	if len(raw) > MaxKeyring {
		return Keyring{}, fmt.Errorf("the keyring is larger than %d bytes", MaxKeyring)
	}
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimLeft(raw, "\ufeff \t\r\n"), []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	keys, err := read(bytes.NewReader(raw))
	if err != nil {
		return Keyring{}, fmt.Errorf("the keyring cannot be read: it is no OpenPGP public keyring (%v)", err)
	}
	if len(keys) == 0 {
		return Keyring{}, fmt.Errorf("the keyring has no key")
	}
	return Keyring{keys}, nil
}

// Verify returns what a key of the keyring has signed in a clear-signed document. There must be nothing else in the document: text beside
// the signed one is how readers are made to see something that nobody signed.
func (k Keyring) Verify(signed []byte, now time.Time) (text []byte, err error) {
	defer noPanic(&err)
	signed = bytes.TrimLeft(signed, "\ufeff \t\r\n")
	if !bytes.HasPrefix(signed, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, badFormat("there is no clear-signed text")
	}
	block, rest := clearsign.Decode(signed)
	if block == nil {
		return nil, badFormat("the clear-signed text cannot be read")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, badFormat("text follows the signature")
	}
	if len(k.keys) == 0 {
		return nil, ErrUntrusted
	}
	if _, err := block.VerifySignature(k.keys, &packet.Config{Time: func() time.Time { return now }}); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUntrusted, strings.TrimPrefix(err.Error(), "openpgp: "))
	}
	return block.Bytes, nil
}

// noPanic makes an error of a panic of the OpenPGP library: its parser has some in it, for instance at a signed text of no lines, and
// what it parses here comes from strangers.
func noPanic(err *error) {
	if e := recover(); e != nil {
		*err = badFormat("the OpenPGP data is malformed")
	}
}
