package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oauth1"
	"github.com/ingot-metal/ingot/storage"
)

// oauthUser finds the user who signed the request. Not found says that the request carries no credentials, or not all parts
// of them. The texts of the failures are MAAS's, and clients match on them; they hold nothing that the caller did not send.
func (s *Server) oauthUser(ctx context.Context, r *http.Request) (u storage.User, found bool, err error) {
	cred, ok := oauth1.FromRequest(r)
	if !ok {
		return u, false, nil
	}
	token, u, err := s.P.KeyOwner(ctx, cred.Token)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return u, true, err
	}
	if err != nil || token.ConsumerKey != cred.ConsumerKey {
		return storage.User{}, true, s.unknownKey(ctx, cred)
	}
	signed, err := cred.Time()
	if err != nil {
		return u, true, badRequest("Invalid timestamp: " + quote(cred.Timestamp))
	}
	now := s.now()
	switch {
	case cred.Version != "" && cred.Version != "1.0":
		return u, true, unauthorized("OAuth version " + short(cred.Version) + " not supported.")
	case !cred.Supported():
		return u, true, unauthorized("Signature method " + short(cred.Method) + " not supported try one of the following: PLAINTEXT, HMAC-SHA1")
	case now.Unix()-signed.Unix() > int64(provisioner.NonceWindow.Seconds()):
		return u, true, unauthorized(fmt.Sprintf("Expired timestamp: given %d and now %d has a greater difference than threshold %d",
			signed.Unix(), now.Unix(), int64(provisioner.NonceWindow.Seconds())))
	}
	// A nonce counts as used only after its signature was found good: nobody without the secret can use up another's nonces.
	if used, err := s.P.NonceUsed(ctx, token.TokenKey, cred.Nonce); err != nil {
		return u, true, err
	} else if used {
		return u, true, unauthorized("Nonce already used: " + short(cred.Nonce))
	}
	if !cred.Valid(asSent(r), "", token.TokenSecret) {
		return u, true, unauthorized("Invalid signature.")
	}
	if !u.IsActive {
		return u, true, wireError{status: http.StatusForbidden, text: notAllowedText}
	}
	err = s.P.UseNonce(ctx, token.TokenKey, cred.Nonce, signed, unsafe(r.Method))
	if errors.Is(err, provisioner.ErrNonceUsed) {
		return u, true, unauthorized("Nonce already used: " + short(cred.Nonce))
	}
	return u, true, err
}

// unknownKey says what is wrong with keys that belong to no user. A machine's own key is refused as MAAS refuses its built-in
// node accounts.
func (s *Server) unknownKey(ctx context.Context, cred oauth1.Credentials) error {
	consumer, node, err := s.P.KnownKeys(ctx, cred.ConsumerKey, cred.Token)
	switch {
	case err != nil:
		return err
	case node:
		return wireError{status: http.StatusForbidden, text: notAllowedText}
	case !consumer:
		return wireError{status: http.StatusUnauthorized, text: "Authorization Error: Invalid API key."}
	}
	return unauthorized("Invalid access token: " + short(cred.Token))
}

func unauthorized(reason string) error {
	return wireError{status: http.StatusUnauthorized, text: "Authorization Error: " + quote(reason)}
}

// short keeps what a caller sent from filling the answer.
func short(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// quote writes a string as Python does.
func quote(s string) string {
	q := "'"
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = `"`
	}
	var b strings.Builder
	b.WriteString(q)
	for _, r := range short(s) {
		switch {
		case string(r) == q || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + q
}
