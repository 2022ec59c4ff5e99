package metadata

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

const edKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

const certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"

// become makes a machine another owner's, in a state, and returns its credentials.
func (s *site) become(id string, status storage.NodeStatus, change func(tx *storage.Tx, n *storage.Node) error) creds {
	s.t.Helper()
	err := s.db.Write(context.Background(), func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(id)
		if err != nil {
			return err
		}
		n.Status = status
		if err := change(tx, &n); err != nil {
			return err
		}
		return tx.UpdateNode(&n)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.preseed(id)
}

// cloudbase asks as cloudbase-init does: oauthlib's PLAINTEXT with an empty realm, python-requests' headers, paths below the metadata URL.
func (s *site) cloudbase(c creds, path string) (int, string) {
	s.t.Helper()
	at := time.Now()
	auth := fmt.Sprintf(`OAuth realm="", oauth_nonce="%d%d", oauth_timestamp="%d", oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_consumer_key="%s", oauth_token="%s", oauth_signature="%%26%s"`,
		at.UnixNano(), at.Unix(), at.Unix(), c.Consumer, c.Token, c.Secret)
	status, body, _ := s.do("GET", "/MAAS/metadata/"+path, auth, "", nil, "User-Agent", "python-requests/2.31.0", "Accept-Encoding", "gzip, deflate", "Accept", "*/*", "Connection", "keep-alive")
	return status, body
}

// TestCloudbaseInit replays the first start of a deployed Windows machine.
func TestCloudbaseInit(t *testing.T) {
	s := newSite(t)
	id, _ := s.enlist()
	script := "#ps1_sysnative\r\nWrite-Host 'ä'\r\n"
	c := s.become(id, storage.StatusDeploying, func(tx *storage.Tx, n *storage.Node) error {
		u := storage.User{Username: "ann", IsActive: true}
		if err := tx.InsertUser(&u); err != nil {
			return err
		}
		for _, k := range []string{edKey + " ann\u2028" + edKey + " evil", `command="calc.exe" ` + edKey, edKey + " desk"} {
			if err := tx.InsertSSHKey(&storage.SSHKey{UserID: u.ID, Key: k}); err != nil {
				return err
			}
		}
		for _, k := range []string{certificate, strings.Replace(certificate, "MIIB", "MIIC", 1)} {
			if err := tx.InsertSSLKey(&storage.SSLKey{UserID: u.ID, Key: k}); err != nil {
				return err
			}
		}
		n.OwnerID, n.Osystem, n.DistroSeries, n.Netboot, n.UserData = &u.ID, "windows", "win2019", false, []byte(script)
		return nil
	})
	// load: is the service there?
	if status, body := s.cloudbase(c, "2012-03-01/meta-data/"); status != 200 || !slices.Contains(strings.Split(body, "\n"), "x509") {
		t.Fatalf("load: %d %q", status, body)
	}
	if status, body := s.cloudbase(c, "2012-03-01/meta-data/local-hostname"); status != 200 || !regexp.MustCompile(`^[a-z0-9-]+\.maas$`).MatchString(body) {
		t.Errorf("local-hostname: %d %q", status, body)
	}
	if status, body := s.cloudbase(c, "2012-03-01/meta-data/instance-id"); status != 200 || body != id {
		t.Errorf("instance-id: %d %q", status, body)
	}
	// SetUserSSHPublicKeysPlugin writes one line for each that splitlines gives.
	status, body := s.cloudbase(c, "2012-03-01/meta-data/public-keys")
	lines := regexp.MustCompile("[\n\r\v\f\x1c-\x1e\u0085\u2028\u2029]").Split(body, -1)
	if status != 200 || len(lines) != 2 || !strings.HasPrefix(lines[0], edKey+" ann ") || lines[1] != edKey+" desk" {
		t.Errorf("public-keys: %d %q", status, lines)
	}
	status, body = s.cloudbase(c, "2012-03-01/meta-data/x509")
	if found := regexp.MustCompile(`-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----`).FindAllString(body, -1); status != 200 || len(found) != 2 || found[0] != certificate {
		t.Errorf("x509: %d %q", status, body)
	}
	node := func() storage.NodeStatus {
		var st storage.NodeStatus
		_ = s.db.Read(context.Background(), func(tx *storage.Tx) error {
			n, err := tx.Node(id)
			st = n.Status
			return err
		})
		return st
	}
	if node() != storage.StatusDeploying {
		t.Fatalf("reading metadata made the machine %v", node())
	}
	// The last plugin reads user-data: the machine is up.
	if status, body := s.cloudbase(c, "2012-03-01/user-data"); status != 200 || body != script {
		t.Errorf("user-data: %d %q", status, body)
	}
	if node() != storage.StatusDeployed {
		t.Errorf("after user-data the machine is %v", node())
	}
	// Whoever has the wrong secret learns the time and nothing else.
	wrong := c
	wrong.Secret = "x"
	for _, p := range []string{"2012-03-01/meta-data/", "2012-03-01/meta-data/x509", "2012-03-01/user-data"} {
		if status, body := s.cloudbase(wrong, p); status != 401 || strings.Contains(body, "CERT") {
			t.Errorf("%s with a wrong secret: %d %q", p, status, body)
		}
	}
	// Without keys, certificates and user-data: empty, empty, and 404, which the plugins take for nothing to do.
	c = s.become(id, storage.StatusDeployed, func(tx *storage.Tx, n *storage.Node) error { n.UserData, n.OwnerID = nil, nil; return nil })
	for p, want := range map[string]int{"meta-data/x509": 200, "meta-data/public-keys": 200, "user-data": 404} {
		if status, body := s.cloudbase(c, "2012-03-01/"+p); status != want || status == 200 && body != "" {
			t.Errorf("%s of nobody: %d %q", p, status, body)
		}
	}
	if _, body := s.cloudbase(c, "2012-03-01/meta-data/"); strings.Contains(body, "x509") || strings.Contains(body, "public-keys") {
		t.Errorf("the list names what is not there: %q", body)
	}
}

// TestKickstartOnlyWhileInstalling: the document holds credentials, and is anonymous as the installer is.
func TestKickstartOnlyWhileInstalling(t *testing.T) {
	s := newSite(t)
	id, _ := s.enlist()
	for path, want := range map[string]int{id: http.StatusConflict, "zzzzzz": http.StatusNotFound, "..%2fx": http.StatusNotFound} {
		if status, body, _ := s.do("GET", Prefix+"latest/by-id/"+path+"/?op=get_kickstart", "", "", nil); status != want || strings.Contains(body, "TOKEN") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}
