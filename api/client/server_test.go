package client_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/server/servertest"
)

// The SDK and a real server understand each other: forms, lists, references, errors, keys.
func TestAgainstServer(t *testing.T) {
	e := servertest.New(t)
	ctx := context.Background()
	as := func(key string) *client.Client {
		c, err := client.New(client.Config{URL: e.URL, APIKey: key})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	admin, user, nobody := as(e.Admin.Key), as(e.User.Key), as("")
	v, err := nobody.VersionRead(ctx, api.VersionReadParams{})
	if err != nil || len(v.Capabilities) != 9 {
		t.Errorf("version: %+v %v", v, err)
	}
	me, err := user.UsersWhoami(ctx, api.UsersWhoamiParams{})
	if err != nil || me.Username != "user" {
		t.Errorf("whoami: %+v %v", me, err)
	}
	for name, super := range map[string]bool{"plain": false, "chief": true} {
		u, err := admin.UsersCreate(ctx, api.UsersCreateParams{Username: name, Email: name + "@example.com", Password: "a long passphrase", IsSuperuser: super})
		if err != nil || u.IsSuperuser != super {
			t.Errorf("user %s: %+v %v", name, u, err)
		}
	}
	m, err := admin.MachinesCreate(ctx, api.MachinesCreateParams{Architecture: client.Ptr("amd64/generic"), MACAddresses: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"},
		Hostname: client.Ptr("one"), PowerType: client.Ptr("manual"), Commission: client.Ptr(false)})
	if err != nil {
		t.Fatal(err)
	}
	if m.Hostname != "one" || len(m.InterfaceSet) != 2 || m.Zone.Name != "default" || m.StatusName != "New" {
		t.Errorf("machine %+v", m)
	}
	list, err := admin.MachinesList(ctx, api.MachinesListParams{MACAddress: []string{"52:54:00:00:00:02"}})
	if err != nil || len(list) != 1 || list[0].SystemID != m.SystemID {
		t.Errorf("list %d %v", len(list), err)
	}
	if known, err := nobody.MachinesIsRegistered(ctx, api.MachinesIsRegisteredParams{MACAddress: "52:54:00:00:00:01"}); err != nil || known {
		t.Errorf("is_registered of a New machine: %v %v", known, err)
	}
	var e400 *client.Error
	if _, err := admin.MachinesList(ctx, api.MachinesListParams{MACAddress: []string{"nonsense"}}); !errors.As(err, &e400) || e400.Fields["mac_address"] == nil {
		t.Errorf("field errors: %v", err)
	}
	if _, err := user.MachinesAllocate(ctx, api.MachinesAllocateParams{}); !client.IsStatus(err, 409) {
		t.Errorf("nothing to allocate: %v", err)
	}
	if err := user.MachineDelete(ctx, api.MachineDeleteParams{SystemID: m.SystemID}); !client.IsStatus(err, 403) {
		t.Errorf("delete as user: %v", err)
	}
	keyed := client.WithIdempotencyKey(ctx, "once")
	a, err := admin.ZonesCreate(keyed, api.ZonesCreateParams{Name: "east"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := admin.ZonesCreate(keyed, api.ZonesCreateParams{Name: "east"}); err != nil || b.ID != a.ID {
		t.Errorf("the same key again: %+v %v", b, err)
	}
	sub, err := admin.SubnetsCreate(ctx, api.SubnetsCreateParams{CIDR: "10.1.0.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := admin.SubnetRead(ctx, api.SubnetReadParams{ID: "10.1.0.0/24"}); err != nil || got.ID != sub.ID {
		t.Errorf("subnet by its CIDR: %+v %v", got, err)
	}
	if got, err := admin.VlanRead(ctx, api.VlanReadParams{VLANID: client.Ptr(sub.VLAN.ID)}); err != nil || got.ID != sub.VLAN.ID {
		t.Errorf("VLAN by its id: %+v %v", got, err)
	}
	if err := admin.MachineDelete(ctx, api.MachineDeleteParams{SystemID: m.SystemID}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := admin.MachineRead(ctx, api.MachineReadParams{SystemID: m.SystemID}); !client.IsStatus(err, 404) {
		t.Errorf("read after delete: %v", err)
	}
}
