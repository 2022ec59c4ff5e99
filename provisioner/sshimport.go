package provisioner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// KeyHosts are where the keys of users of Launchpad and GitHub are read: base URLs without an end slash.
type KeyHosts struct {
	Launchpad string // https://launchpad.net when empty
	GitHub    string // https://github.com when empty
}

const (
	maxKeyDocument = 256 << 10 // of one user's keys
	maxImported    = 100
	importTimeout  = 15 * time.Second
)

var (
	launchpadName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{0,62}$`)
	githubName    = regexp.MustCompile(`^[A-Za-z0-9](-?[A-Za-z0-9]){0,38}$`)
)

// keySource takes lp:user, gh:user or user apart and answers the address of the user's keys.
func (h KeyHosts) keySource(text string) (source, address string, err error) {
	protocol, name, ok := strings.Cut(strings.TrimSpace(text), ":")
	if !ok {
		protocol, name = "lp", protocol
	}
	badName := func() (string, string, error) {
		return "", "", Errorf(Invalid, "Unable to import SSH keys. There is no %s user '%s'.", protocol, firstRunes(name, 100))
	}
	switch protocol {
	case "lp":
		if !launchpadName.MatchString(name) {
			return badName()
		}
		return "lp:" + name, or(h.Launchpad, "https://launchpad.net") + "/~" + url.PathEscape(name) + "/+sshkeys", nil
	case "gh":
		if !githubName.MatchString(name) {
			return badName()
		}
		return "gh:" + name, or(h.GitHub, "https://github.com") + "/" + url.PathEscape(name) + ".keys", nil
	}
	return "", "", Errorf(Invalid, "Unable to import SSH keys. The key source is lp:user or gh:user.")
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// ImportSSHKeys adds to the actor the keys that a user of Launchpad or GitHub has published, and answers all that come from there.
// The keys are read before the store is touched.
func (s *Service) ImportSSHKeys(ctx context.Context, from string) (keys []storage.SSHKey, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	source, address, err := s.KeyHosts.keySource(from)
	if err != nil {
		return nil, err
	}
	text, err := s.fetchKeys(ctx, source, address)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// A key of a kind that we do not know does not keep the others out.
		if key, err := NormaliseSSHKey(line); err == nil && len(lines) < maxImported {
			lines = append(lines, key)
		}
	}
	if len(lines) == 0 {
		return nil, Errorf(Invalid, "Unable to import SSH keys. There are no usable keys for %s.", source)
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		keys = nil
		have, err := tx.SSHKeys(a.User.ID)
		if err != nil {
			return err
		}
		known := map[string]storage.SSHKey{}
		for _, k := range have {
			known[k.Key] = k
		}
		added := 0
		for _, line := range lines {
			k, ok := known[line]
			if !ok {
				k = storage.SSHKey{UserID: a.User.ID, Key: line, Source: source}
				if err := tx.InsertSSHKey(&k); err != nil {
					return err
				}
				known[line] = k
				added++
			}
			keys = append(keys, k)
		}
		return s.audit(tx, a, "AUTHORISATION", "Imported %d SSH keys from %s.", added, source)
	})
	return keys, err
}

// fetchKeys reads a document of keys. What goes wrong is the caller's 400, with no more detail than the user needs.
func (s *Service) fetchKeys(ctx context.Context, source, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	client := *s.HTTP
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > 3 || r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
			return errors.New("redirected elsewhere")
		}
		return nil
	}
	failed := func(format string, args ...any) (string, error) {
		return "", &Error{Kind: Invalid, Text: "Unable to import SSH keys. " + fmt.Sprintf(format, args...), Err: err}
	}
	res, err := client.Do(req)
	if err != nil {
		return failed("%s could not be reached.", req.URL.Host)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNotFound:
		protocol, name, _ := strings.Cut(source, ":")
		return failed("There is no %s user '%s'.", protocol, name)
	case res.StatusCode != http.StatusOK:
		return failed("%s answered with status %d.", req.URL.Host, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeyDocument+1))
	if err != nil {
		return failed("%s stopped answering.", req.URL.Host)
	}
	if len(body) > maxKeyDocument {
		return failed("%s answered with more than %d bytes.", req.URL.Host, maxKeyDocument)
	}
	return strings.ToValidUTF8(string(body), "\uFFFD"), nil
}
