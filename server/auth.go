package server

import (
	"context"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

const (
	sessionCookie = "sessionid"
	csrfCookie    = "csrftoken"
	csrfHeader    = "X-CSRFToken"
	csrfField     = "csrfmiddlewaretoken"
)

const notAllowedText = "User is not allowed access to this API."

// visitor is the actor of a request before anybody knows who it is.
func visitor(c echo.Context) provisioner.Actor {
	r := c.Request()
	agent := strings.ToValidUTF8(r.UserAgent(), "\uFFFD")
	if len(agent) > 255 {
		agent = strings.ToValidUTF8(agent[:255], "")
	}
	// The peer's own address and not what a header says: the header is the peer's to choose.
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return provisioner.Actor{Anonymous: true, UserAgent: agent, Client: host, Endpoint: "API", Explain: explain(c.Request())}
}

// authenticate finds out who calls: by session cookie, else by OAuth signature. It answers a context with the actor, the
// anonymous one when the operation has a variant for callers who show nothing. Credentials that are shown must be good, also where
// none are needed; the one exception are handlers that never look at any, such as version/.
func (s *Server) authenticate(c echo.Context, op *api.Operation) (context.Context, error) {
	r := c.Request()
	ctx := r.Context()
	actor := visitor(c)
	if op.Permission == "anon" && op.Anon && len(op.Handler.AnonMethods) == 0 {
		return provisioner.WithActor(ctx, actor), nil
	}
	u, csrf, err := s.sessionUser(c)
	switch {
	case err == nil:
		if !u.IsActive {
			return nil, wireError{status: http.StatusForbidden, text: notAllowedText}
		}
		if unsafe(r.Method) && !csrfGood(r, csrf) {
			return nil, wireError{status: http.StatusForbidden, text: "CSRF verification failed. Request aborted."}
		}
		actor.Endpoint = "UI"
	case !errors.Is(err, storage.ErrNotFound):
		return nil, err
	default:
		var found bool
		if u, found, err = s.oauthUser(ctx, r); err != nil {
			return nil, err
		}
		if !found {
			return s.withoutCredentials(ctx, actor, op)
		}
	}
	if actor, err = s.P.ActorOf(ctx, actor, u); err != nil {
		return nil, err
	}
	return provisioner.WithActor(ctx, actor), nil
}

func (s *Server) withoutCredentials(ctx context.Context, actor provisioner.Actor, op *api.Operation) (context.Context, error) {
	switch {
	case op.Anon:
		return provisioner.WithActor(ctx, actor), nil
	case op.Permission == "admin", op.Handler != nil && strings.HasPrefix(op.Handler.Name, "CommissioningScript"):
		return nil, wireError{status: http.StatusForbidden, text: "Forbidden"}
	}
	return nil, wireError{status: http.StatusUnauthorized, text: "Forbidden"}
}

func unsafe(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
}

// sessionUser finds the user of the session cookie; storage.ErrNotFound when there is no session.
func (s *Server) sessionUser(c echo.Context) (u storage.User, csrf string, err error) {
	cookie, err := c.Cookie(sessionCookie)
	if err != nil || cookie.Value == "" {
		return u, "", storage.ErrNotFound
	}
	session, u, err := s.P.SessionOf(c.Request().Context(), cookie.Value)
	return u, session.CSRF, err
}

// csrfGood says whether the request carries the session's CSRF token: what another site cannot read and so cannot send.
func csrfGood(r *http.Request, want string) bool {
	got := r.Header.Get(csrfHeader)
	if got == "" && r.PostForm != nil {
		got = r.PostForm.Get(csrfField)
	}
	return want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

// The pages around the login -------------------------------------------------------------------------------------------------

const maxLoginBody = 64 << 10

// accountRoutes adds the paths outside of the operations by which people get an API key or a session.
func (s *Server) accountRoutes(e *echo.Echo) {
	e.Any("/MAAS/accounts/authenticate/", s.only(http.MethodPost, s.accountAuthenticate))
	e.Any("/MAAS/accounts/logout/", s.only(http.MethodPost, s.accountLogout))
	e.Any("/MAAS/account/csrf/", s.only(http.MethodPost, s.accountCSRF))
	e.Any("/MAAS/accounts/login/", func(c echo.Context) error {
		switch c.Request().Method {
		case http.MethodGet:
			return s.accountLoginState(c)
		case http.MethodPost:
			return s.accountLogin(c)
		}
		return notAllowed(http.MethodGet, http.MethodPost)
	})
}

func (s *Server) only(method string, h echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.Request().Method != method {
			return notAllowed(method)
		}
		return h(c)
	}
}

func answer(c echo.Context, r oapi.Response, err error) error {
	if err != nil {
		return err
	}
	return write(c, r)
}

// credentialsForm reads user name and password, and what else comes with them.
func credentialsForm(c echo.Context) (keyvals, error) {
	q := &request{}
	if err := q.readBody(c.Request(), maxLoginBody); err != nil {
		return keyvals{}, err
	}
	return q.form, nil
}

// tooMany is the answer to those who guess passwords, if err says so.
func tooMany(err error) error {
	var t *provisioner.TooManyAttempts
	if !errors.As(err, &t) {
		return err
	}
	return wireError{status: http.StatusTooManyRequests, text: t.Error(), header: http.Header{"Retry-After": {strconv.Itoa(int(t.Wait.Seconds()) + 1)}}}
}

// accountAuthenticate answers an API key for a user name and password.
func (s *Server) accountAuthenticate(c echo.Context) error {
	form, err := credentialsForm(c)
	if err != nil {
		return err
	}
	ctx := provisioner.WithActor(c.Request().Context(), visitor(c))
	t, err := s.P.Authenticate(ctx, form.Get("username"), form.Get("password"), form.Get("consumer"))
	if errors.Is(err, provisioner.ErrBadLogin) {
		return wireError{status: http.StatusForbidden}
	}
	if err != nil {
		return tooMany(err)
	}
	r, err := oapi.JSON(http.StatusOK, accountToken(t))
	return answer(c, r, err)
}

func (s *Server) accountLoginState(c echo.Context) error {
	_, _, err := s.sessionUser(c)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	var users []storage.User
	if rerr := s.P.DB.Read(c.Request().Context(), func(tx *storage.Tx) (err error) { users, err = tx.Users(); return err }); rerr != nil {
		return rerr
	}
	r, rerr := oapi.JSON(http.StatusOK, struct {
		Authenticated   bool    `json:"authenticated"`
		ExternalAuthURL *string `json:"external_auth_url"`
		NoUsers         bool    `json:"no_users"`
	}{err == nil, nil, len(users) == 0})
	return answer(c, r, rerr)
}

func (s *Server) accountLogin(c echo.Context) error {
	if _, _, err := s.sessionUser(c); err == nil {
		r, err := oapi.NoContent()
		return answer(c, r, err)
	}
	form, err := credentialsForm(c)
	if err != nil {
		return err
	}
	fields := map[string][]string{}
	for _, name := range []string{"username", "password"} {
		if form.Get(name) == "" {
			fields[name] = []string{"This field is required."}
		}
	}
	if len(fields) > 0 {
		return &provisioner.Error{Kind: provisioner.Invalid, Fields: fields}
	}
	actor := visitor(c)
	actor.Endpoint = "UI"
	cookie, session, err := s.P.Login(provisioner.WithActor(c.Request().Context(), actor), form.Get("username"), form.Get("password"))
	if errors.Is(err, provisioner.ErrBadLogin) {
		return provisioner.FieldError("__all__", "Please enter a correct username and password. Note that both fields may be case-sensitive.")
	}
	if err != nil {
		return tooMany(err)
	}
	s.setCookie(c, sessionCookie, cookie, session.Expires, true)
	s.setCookie(c, csrfCookie, session.CSRF, session.Expires, false) // for scripts of our own pages to send back
	r, err := oapi.NoContent()
	return answer(c, r, err)
}

func (s *Server) setCookie(c echo.Context, name, value string, expires time.Time, httpOnly bool) {
	c.SetCookie(&http.Cookie{Name: name, Value: value, Path: "/", Expires: expires, HttpOnly: httpOnly, Secure: c.Scheme() == "https", SameSite: http.SameSiteLaxMode})
}

func (s *Server) accountLogout(c echo.Context) error {
	if cookie, err := c.Cookie(sessionCookie); err == nil && cookie.Value != "" {
		if err := s.P.Logout(c.Request().Context(), cookie.Value); err != nil {
			return err
		}
	}
	for _, name := range []string{sessionCookie, csrfCookie} {
		c.SetCookie(&http.Cookie{Name: name, Path: "/", MaxAge: -1, HttpOnly: name == sessionCookie, SameSite: http.SameSiteLaxMode})
	}
	r, err := oapi.NoContent()
	return answer(c, r, err)
}

// accountCSRF tells the session's CSRF token. Other sites can send this request but not read its answer.
func (s *Server) accountCSRF(c echo.Context) error {
	_, csrf, err := s.sessionUser(c)
	if errors.Is(err, storage.ErrNotFound) {
		return wireError{status: http.StatusForbidden}
	}
	if err != nil {
		return err
	}
	r, err := oapi.JSON(http.StatusOK, map[string]string{"csrf": csrf})
	return answer(c, r, err)
}

// explain tells whether the caller wants a refusal to say why, beside MAAS's text.
func explain(r *http.Request) bool {
	return r.Header.Get("X-Ingot-Explain") == "1" || strings.Contains(r.Header.Get("Accept"), "application/problem+json")
}
