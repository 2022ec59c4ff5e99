package server_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

func TestGroups(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	run(t, []step{
		{e.Anon, "GET", "groups/", "", 401, ""},
		{user, "GET", "groups/", "", 403, "can_view_identities"},
		{admin, "GET", "groups/", "", 200, `"name": "Administrators"`},
		{admin, "POST", "groups/", "", 400, "Name is required."},
		{admin, "POST", "groups/", "name=", 400, "Name is required."},
		{admin, "POST", "groups/", "name=lab&description=the lab", 200, `"id": 3`},
		{admin, "POST", "groups/", "name=lab", 409, "already exists"},
		{user, "POST", "groups/", "name=x", 403, "can_edit_identities"},
		{admin, "GET", "groups/3/", "", 200, `"description": "the lab"`},
		{admin, "GET", "groups/99/", "", 404, "UserGroup with id 99 not found."},
		{admin, "PUT", "groups/3/", "name=lab2", 200, `"name": "lab2"`},
		{admin, "PUT", "groups/3/", "name=Users", 409, "already exists"},
		{admin, "PUT", "groups/99/", "name=x", 404, "UserGroup with id 99 not found."},
		{admin, "GET", "groups/2/?op=list_members", "", 200, `"email": "user@example.com"`},
		{admin, "GET", "groups/99/?op=list_members", "", 404, "UserGroup with id 99 not found."},
		{admin, "POST", "groups/3/?op=add_member", "", 400, "username is required."},
		{admin, "POST", "groups/3/?op=add_member", "username=nobody", 404, "nobody"},
		{admin, "POST", "groups/99/?op=add_member", "username=user", 404, "UserGroup with id 99 not found."},
		{user, "POST", "groups/3/?op=add_member", "username=user", 403, "can_edit_identities"},
		{admin, "POST", "groups/3/?op=add_member", "username=user", 200, "OK"},
		{admin, "POST", "groups/3/?op=add_member", "username=user", 409, "already a member"},
		{admin, "POST", "groups/3/?op=remove_member", "", 400, "username is required."},
		{admin, "POST", "groups/3/?op=remove_member", "username=nobody", 404, "nobody"},
		{admin, "POST", "groups/3/?op=remove_member", "username=user", 204, ""},
		{admin, "POST", "groups/3/?op=remove_member", "username=user", 204, ""},

		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=maas&resource_id=-1&entitlement=can_view_machines", 400, "resource_id"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=maas&resource_id=4&entitlement=can_view_machines", 400, "resource_id"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=zone&resource_id=0&entitlement=can_view_machines", 400, "resource_type"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=maas&resource_id=0&entitlement=can_fly", 400, "can_fly"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=pool&resource_id=0&entitlement=can_edit_identities", 400, "can_edit_identities"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=pool&resource_id=99&entitlement=can_view_machines", 404, "99"},
		{admin, "POST", "groups/99/?op=add_entitlement", "resource_type=maas&resource_id=0&entitlement=can_view_machines", 404, "UserGroup with id 99 not found."},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_id=0&entitlement=can_view_machines", 400, "resource_type"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=pool&resource_id=0&entitlement=can_view_machines", 200, "OK"},
		{admin, "POST", "groups/3/?op=add_entitlement", "resource_type=maas&resource_id=0&entitlement=can_view_devices", 200, "OK"},
		{admin, "GET", "groups/3/?op=list_entitlements", "", 200, `"resource_type": "pool"`},
		{admin, "POST", "groups/3/?op=remove_entitlement", "resource_type=pool&resource_id=0&entitlement=can_view_machines", 204, ""},
		{admin, "POST", "groups/3/?op=remove_entitlement", "resource_type=pool&resource_id=0&entitlement=can_view_machines", 204, ""},
		{admin, "POST", "groups/3/?op=remove_entitlement", "resource_type=pool&resource_id=0&entitlement=no", 400, "no"},

		{admin, "POST", "groups/1/?op=remove_entitlement", "resource_type=maas&resource_id=0&entitlement=can_edit_identities", 400, "keeps its entitlements"},
		{admin, "POST", "groups/1/?op=remove_member", "username=admin", 400, "The last administrator cannot go"},
		{admin, "DELETE", "groups/1/", "", 400, "default groups"},
		{admin, "DELETE", "groups/2/", "", 400, "default groups"},
		{user, "DELETE", "groups/3/", "", 403, "can_edit_identities"},
		{admin, "DELETE", "groups/3/", "", 204, ""},
		{admin, "DELETE", "groups/3/", "", 404, "UserGroup with id 3 not found."},

		{user, "POST", "zones/", "name=z", 403, "can_edit_global_entities"},
		{admin, "POST", "groups/1/?op=add_member", "username=user", 200, "OK"},
		{user, "GET", "users/?op=whoami", "", 200, `"is_superuser": true`},
		{user, "POST", "zones/", "name=z", 200, ""},
		{user, "POST", "groups/1/?op=remove_member", "username=admin", 204, ""},
		{admin, "GET", "users/?op=whoami", "", 200, `"is_superuser": false`},
		{admin, "POST", "zones/", "name=z2", 403, "can_edit_global_entities"},
	})
}

// What groups give on one pool, and what lists show by it.
func TestPoolEntitlements(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	other := e.AddUser(t, "other", false)
	group := func(id int, op, entitlement, resource string, pool int64) {
		t.Helper()
		a := admin.Post(fmt.Sprintf("groups/%d/?op=%s_entitlement", id, op), "resource_type", resource, "resource_id", fmt.Sprint(pool), "entitlement", entitlement)
		if a.Status != 200 && a.Status != 204 {
			t.Fatalf("%s %s: %d %s", op, entitlement, a.Status, a.Text())
		}
	}
	var pool api.ResourcePool
	admin.Post("resourcepools/", "name", "lab").Into(t, &pool)
	for i, id := range []string{"aaaaaa", "bbbbbb", "cccccc", "dddddd"} {
		addMachine(t, e, id, storage.StatusReady)
		if i >= 2 {
			if a := admin.Put("machines/"+id+"/", "pool", "lab"); a.Status != 200 {
				t.Fatal(a.Text())
			}
		}
	}
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		for _, id := range []string{"bbbbbb", "dddddd"} {
			n, err := tx.LockNodeBySystemID(id)
			if err != nil {
				return err
			}
			n.OwnerID, n.Status = &other.User.ID, storage.StatusDeployed
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sees := func(who *servertest.Caller, want ...string) {
		t.Helper()
		var list []api.Machine
		who.Get("machines/").Into(t, &list)
		var got []string
		for _, m := range list {
			got = append(got, m.SystemID)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s sees %v, want %v", who.User.Username, got, want)
		}
	}
	pools := func(who *servertest.Caller, want ...string) {
		t.Helper()
		var list []api.ResourcePool
		who.Get("resourcepools/").Into(t, &list)
		var got []string
		for _, p := range list {
			got = append(got, p.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s sees the pools %v, want %v", who.User.Username, got, want)
		}
	}
	// The default groups: what administrators and users could do before there were groups.
	sees(admin, "aaaaaa", "bbbbbb", "cccccc", "dddddd")
	sees(user, "aaaaaa", "cccccc")
	sees(other, "aaaaaa", "bbbbbb", "cccccc", "dddddd")
	pools(user, "default", "lab")

	// Users work in the default pool alone.
	group(2, "remove", "can_view_available_machines", "maas", 0)
	group(2, "remove", "can_deploy_machines", "maas", 0)
	group(2, "add", "can_view_available_machines", "pool", 0)
	group(2, "add", "can_deploy_machines", "pool", 0)
	sees(user, "aaaaaa")
	sees(other, "aaaaaa", "bbbbbb")
	pools(user, "default")
	run(t, []step{
		{user, "GET", "resourcepool/lab/", "", 403, ""},
		{user, "POST", "machines/?op=allocate", "pool=lab&dry_run=true", 409, "No available machine matches constraints"},
		{user, "POST", "machines/?op=allocate", "system_id=cccccc", 409, "No machine with system ID cccccc available."},
		{user, "GET", "machines/dddddd/", "", 403, ""},
	})

	// A group of editors of the lab.
	run(t, []step{{admin, "POST", "groups/", "name=editors", 200, ""}, {admin, "POST", "groups/3/?op=add_member", "username=user", 200, "OK"}})
	group(3, "add", "can_edit_machines", "pool", pool.ID)
	sees(user, "aaaaaa", "cccccc", "dddddd")
	pools(user, "default", "lab")
	run(t, []step{
		{user, "GET", "machines/dddddd/", "", 200, ""},
		{user, "GET", "machines/bbbbbb/", "", 403, ""},
		{user, "PUT", "machines/cccccc/", "description=mine", 200, `"description": "mine"`},
		{user, "PUT", "machines/aaaaaa/", "description=mine", 403, ""},
		{user, "GET", "machines/cccccc/?op=power_parameters", "", 200, ""},
		{user, "GET", "machines/aaaaaa/?op=power_parameters", "", 403, ""},
		{user, "PUT", "resourcepool/lab/", "description=ours", 200, `"description": "ours"`},
		{user, "PUT", "resourcepool/default/", "description=ours", 403, ""},
		{user, "POST", "resourcepools/", "name=more", 403, ""},
		{user, "DELETE", "resourcepool/lab/", "", 403, ""},
		{user, "POST", "machines/?op=allocate", "pool=lab&dry_run=true", 200, `"system_id": "cccccc"`},
		{user, "POST", "zones/", "name=z", 403, "can_edit_global_entities"},
	})
	group(3, "add", "can_edit_global_entities", "maas", 0)
	run(t, []step{{user, "POST", "zones/", "name=z", 200, ""}, {user, "POST", "resourcepools/", "name=more", 403, ""}})
	if a := admin.Delete("groups/3/"); a.Status != 204 {
		t.Fatal(a.Text())
	}
	sees(user, "aaaaaa")
	run(t, []step{{user, "POST", "zones/", "name=z3", 403, "can_edit_global_entities"}})
}

// Once the entitlements of a user are known, nobody asks the store for them until they change.
func TestEntitlementsAreRemembered(t *testing.T) {
	e := servertest.New(t)
	statements := func() int64 {
		t.Helper()
		var u storage.User
		if err := e.DB.Read(t.Context(), func(tx *storage.Tx) (err error) { u, err = tx.User(e.User.User.ID); return err }); err != nil {
			t.Fatal(err)
		}
		ctx, counter := storage.WithCounter(t.Context())
		if _, err := e.P.AccessOf(ctx, u); err != nil {
			t.Fatal(err)
		}
		return counter.N()
	}
	first := statements()
	if second := statements(); first == 0 || second != 0 {
		t.Errorf("%d statements, then %d", first, second)
	}
	if a := e.Admin.Post("groups/", "name", "g"); a.Status != 200 {
		t.Fatal(a.Text())
	}
	if n := statements(); n != 0 {
		t.Errorf("%d statements after a change to a group that the user is not in", n)
	}
	if a := e.Admin.Post("groups/3/?op=add_member", "username", "user"); a.Status != 200 {
		t.Fatal(a.Text())
	}
	if n := statements(); n != first {
		t.Errorf("%d statements after a change, want %d", n, first)
	}
	if n := statements(); n != 0 {
		t.Errorf("%d statements, want none", n)
	}
}
