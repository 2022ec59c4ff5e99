package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// TestInstallTrees: the wire of the trees. What becomes of them is tested with the rules.
func TestInstallTrees(t *testing.T) {
	e := servertest.New(t)
	const trees = "/ingot/v1/install-trees"
	var tree api.IngotInstallTree
	a := e.Admin.Post(trees, "name", "rocky/rocky9", "url", "http://mirror.example/os/", "repositories", "AppStream=http://mirror.example/app/", "packages", "vim", "packages", "@core", "timezone", "Europe/Berlin")
	if a.Into(t, &tree); a.Status != 200 || tree.State != "waiting" || tree.Architecture != "amd64" || strings.Join(tree.Packages, " ") != "vim @core" || len(tree.Repositories) != 1 || tree.Timezone != "Europe/Berlin" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	one := fmt.Sprintf("%s/%d", trees, tree.ID)
	var list []api.IngotInstallTree
	if a := e.User.Get(trees); a.Status != 200 {
		t.Errorf("list: %d %s", a.Status, a.Body)
	} else if a.Into(t, &list); len(list) != 1 || list[0].ID != tree.ID {
		t.Errorf("list: %s", a.Body)
	}
	if a := e.Admin.Put(one, "packages", "", "url", "https://mirror.example/os/"); a.Status != 200 {
		t.Errorf("update: %d %s", a.Status, a.Body)
	} else if a.Into(t, &tree); tree.URL != "https://mirror.example/os/" || len(tree.Packages) != 0 || tree.Timezone != "Europe/Berlin" {
		t.Errorf("update: %s", a.Body)
	}
	for name, a := range map[string]servertest.Answer{
		"This field is required": e.Admin.Post(trees, "name", "rocky/rocky8"),
		"Enter a valid URL":      e.Admin.Post(trees, "name", "rocky/rocky8", "url", "file:///etc"),
		"already exists":         e.Admin.Post(trees, "name", "rocky/rocky9", "url", "http://mirror.example/os/"),
	} {
		if a.Status != 400 || !strings.Contains(a.Text(), name) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	if a := e.Admin.Delete(one); a.Status != 204 {
		t.Errorf("delete: %d %s", a.Status, a.Body)
	}
	for _, a := range []servertest.Answer{e.Admin.Get(one), e.Admin.Delete(one), e.Admin.Get(trees + "/9999999999")} {
		if a.Status != 404 {
			t.Errorf("a deleted tree: %d %s", a.Status, a.Body)
		}
	}
}

// TestMachinePassword: told once, to the owner, and never to a cache.
func TestMachinePassword(t *testing.T) {
	e := servertest.New(t)
	const id = "wnode1"
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
		pool := storage.DefaultPoolID
		n := storage.Node{SystemID: id, Hostname: id, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool, OwnerID: &e.User.User.ID, Status: storage.StatusDeployed,
			Architecture: "amd64/generic", Osystem: "windows", DistroSeries: "win2019", PowerType: "manual"}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		if err := tx.InsertNodeToken(&storage.NodeToken{NodeID: n.ID, ConsumerKey: "c", TokenKey: "t", TokenSecret: "s"}); err != nil {
			return err
		}
		return tx.SetNodeSecret(n.ID, "windows-administrator", "s3cret-Word")
	})
	if err != nil {
		t.Fatal(err)
	}
	path := "/ingot/v1/machines/" + id + "/password"
	for _, c := range []*servertest.Caller{e.Anon, e.AddUser(t, "somebody", false), e.Admin} {
		if a := c.Post(path); a.Status < 400 || strings.Contains(a.Text(), "s3cret") {
			t.Errorf("%s: %d %s", c.User.Username, a.Status, a.Body)
		}
	}
	var got api.IngotMachinePassword
	if a := e.User.Post(path); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	} else if a.Into(t, &got); got.Username != "Administrator" || got.Password != "s3cret-Word" {
		t.Errorf("%+v", got)
	}
	if a := e.User.Post(path); a.Status != 404 {
		t.Errorf("told twice: %d %s", a.Status, a.Body)
	}
	if a := e.User.Get("/MAAS/api/2.0/machines/" + id + "/"); strings.Contains(a.Text(), "s3cret") {
		t.Error("the password is in the machine")
	}
	if strings.Contains(e.Log.String(), "s3cret") {
		t.Error("the password is in the log")
	}
}
