package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSync: the inventory goes to the address in the file, with the credentials there.
func TestSync(t *testing.T) {
	var auth, status string
	var inventory []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil || r.URL.Path != "/MAAS/metadata/2012-03-01/" {
			t.Errorf("%s: %v", r.URL, err)
		}
		auth, status = r.Header.Get("Authorization"), r.FormValue("status")
		f, _, err := r.FormFile(resultInventory)
		if err != nil {
			t.Error(err)
			return
		}
		var doc map[string]any
		if err := json.NewDecoder(f).Decode(&doc); err != nil {
			t.Error(err)
		}
		inventory, _ = json.Marshal(doc["resources"])
		_, _ = w.Write([]byte("OK"))
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "sync.cfg")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("#cloud-config\ndatasource:\n  MAAS: {metadata_url: " + s.URL + "/MAAS/metadata/, consumer_key: CK, token_key: TK, token_secret: TS}\n")
	if err := Sync(context.Background(), file, Config{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(auth, `oauth_token="TK"`) || status != "WORKING" || !strings.Contains(string(inventory), `"cpu"`) {
		t.Errorf("%q %q %.200s", auth, status, inventory)
	}
	for _, text := range []string{"", "#cloud-config\ndatasource:\n  MAAS: {metadata_url: " + s.URL + "}\n", "#cloud-config\n- x\n"} {
		write(text)
		if err := Sync(context.Background(), file, Config{}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
