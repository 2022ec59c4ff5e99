package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"sort"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// idempotent runs an operation, and sends its answer. When the caller gave an Idempotency-Key, the operation runs once for that
// key: the same request again gets the same answer for a day, through restarts too, and another request with the key gets 409.
// Answers of 5xx are not kept: such a call may be made again, unless it had committed something by then.
func (s *Server) idempotent(c echo.Context, q *request, run func(context.Context) (oapi.Response, error)) error {
	key := c.Request().Header.Get("Idempotency-Key")
	if key == "" || c.Request().Method == http.MethodGet || q.actor.User.ID == 0 || rawBody(q.operation.Handler, c.Request()) {
		r, err := run(c.Request().Context())
		if err != nil {
			return err
		}
		return write(c, r)
	}
	if !printable(key) {
		return badRequest("Idempotency-Key must be 1 to 128 printable characters without spaces.")
	}
	ctx, user, request := c.Request().Context(), q.actor.User.ID, fingerprint(c.Request(), q)
	var earlier *storage.IdempotencyKey
	err := s.P.DB.Write(ctx, func(tx *storage.Tx) (err error) {
		earlier, err = tx.ReserveIdempotency(user, key, request)
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case earlier == nil:
	case earlier.Request != request:
		return wireError{status: http.StatusConflict, text: "Idempotency-Key was used for another request."}
	case earlier.Pending():
		return wireError{status: http.StatusConflict, header: http.Header{"Retry-After": {"1"}},
			text: "The request with this Idempotency-Key is still running, or its answer was lost. Look at what it was to change before you use another key."}
	default:
		r := oapi.Response{Status: int(earlier.Status), ContentType: earlier.ContentType, Body: earlier.Body}
		return write(c, r.With("Idempotent-Replayed", "true"))
	}
	settled := false
	defer func() {
		if !settled { // the operation panicked
			s.release(ctx, user, key)
		}
	}()
	r, err := run(storage.WithIdempotency(ctx, user, key))
	if err != nil {
		var known bool
		if r, known = render(err); !known || r.Status >= 500 {
			return err
		}
	}
	if r.IsJSON {
		var b bytes.Buffer
		if err := api.WriteJSON(&b, r.Value); err != nil {
			return err
		}
		r.Body, r.IsJSON = b.Bytes(), false
	}
	// What the operation did is done: its answer is kept though the client may be gone.
	settled = true
	bg, cancel := background(ctx, 10*time.Second)
	defer cancel()
	if err := s.P.DB.Write(bg, func(tx *storage.Tx) error {
		return tx.FinishIdempotency(user, key, r.Status, r.ContentType, r.Body)
	}); err != nil {
		s.log.Error("answer not kept for its idempotency key", "error", err, "operation", q.operation.ID)
	}
	return write(c, r)
}

func (s *Server) release(ctx context.Context, user int64, key string) {
	bg, cancel := background(ctx, 10*time.Second)
	defer cancel()
	if err := s.P.DB.Write(bg, func(tx *storage.Tx) error { return tx.ReleaseIdempotency(user, key) }); err != nil {
		s.log.Error("idempotency key not released", "error", err)
	}
}

// fingerprint tells requests apart: method, path, operation and everything that was sent but the credentials.
func fingerprint(req *http.Request, q *request) string {
	h := sha256.New()
	for _, p := range []keyvals{q.query, q.form} {
		keys := append([]string(nil), p.keys...)
		sort.Strings(keys)
		for _, k := range keys {
			if transport(k) {
				continue
			}
			fmt.Fprintf(h, "%q=%q\n", k, p.values[k])
		}
		fmt.Fprintln(h)
	}
	for _, f := range q.files {
		fmt.Fprintf(h, "%q %q %x\n", f.Field, f.Name, sha256.Sum256(f.Content))
	}
	return req.Method + " " + req.URL.Path + " " + q.operation.ID + " " + hex.EncodeToString(h.Sum(nil))
}
