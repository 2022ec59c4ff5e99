package server_test

import (
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/power/drivers"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

func TestControllerOperations(t *testing.T) {
	e := servertest.New(t, func(p *servertest.ProvisionerConfig, _ *servertest.ServerConfig) { p.Power = drivers.All() })
	rack, err := e.P.RegisterRack(t.Context(), api.RackHello{Hostname: "rack-1", Architecture: "amd64", Version: "1"}, storage.NodeRack, "aa")
	if err != nil {
		t.Fatal(err)
	}
	var regions [2]storage.Node
	for i, name := range []string{"region-1", "region-2"} {
		if regions[i], err = e.P.RegisterRegion(t.Context(), api.RackHello{Hostname: name, Architecture: "amd64", Version: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		r := storage.BootResource{Rtype: 2, Name: "custom/x", Architecture: "amd64/generic"}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "1", Label: "uploaded"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		return tx.InsertBootResourceFile(&storage.BootResourceFile{SetID: set.ID, Filename: "root-tgz", Filetype: "root-tgz", SHA256: strings.Repeat("ab", 32), Size: 1, Uploaded: 1, Complete: true})
	}); err != nil {
		t.Fatal(err)
	}
	if err := e.P.RecordRackCache(t.Context(), rack, api.RackCache{Contents: []string{strings.Repeat("ab", 32)}}); err != nil {
		t.Fatal(err)
	}
	at, region := "rackcontrollers/"+rack.SystemID+"/", "regioncontrollers/"+regions[0].SystemID+"/"
	admin, user := e.Admin, e.User
	run(t, []step{
		{user, "PUT", at, "description=x", 403, ""},
		{admin, "PUT", at, "zone=nowhere", 400, "Select a valid choice."},
		{admin, "PUT", at, "power_type=magic", 400, "Select a valid choice."},
		{admin, "PUT", at, "description=x&power_type=ipmi&power_parameters_power_address=10.0.0.1&power_parameters_power_pass=secret", 200, `"description": "x"`},
		{admin, "PUT", region, "description=the+region", 200, `"description": "the+region"`},
		{admin, "PUT", "rackcontrollers/zzz/", "description=x", 404, "No RackController matches the given query."},
		{admin, "PUT", "rackcontrollers/" + regions[0].SystemID + "/", "description=x", 404, ""},
		{user, "GET", at + "?op=power_parameters", "", 403, ""},
		{admin, "GET", at + "?op=power_parameters", "", 200, `"power_address": "10.0.0.1"`},
		{admin, "GET", region + "?op=power_parameters", "", 200, "{}"},
		{admin, "GET", "rackcontrollers/?op=power_parameters", "", 200, `"` + rack.SystemID + `": {`},
		{user, "GET", "rackcontrollers/?op=power_parameters", "", 403, ""},
		{user, "GET", "rackcontrollers/?op=describe_power_types", "", 403, ""},
		{user, "GET", at + "?op=list_boot_images", "", 403, ""},
		{admin, "GET", at + "?op=list_boot_images", "", 200, `"status": "synced"`},
		{admin, "GET", at + "?op=list_boot_images", "", 200, `"name": "custom/x"`},
		{user, "POST", at + "?op=import_boot_images", "", 403, ""},
		{admin, "POST", at + "?op=import_boot_images", "", 202, "Accepted"},
		{admin, "POST", "rackcontrollers/?op=import_boot_images", "", 202, "Accepted"},
		{admin, "POST", "rackcontrollers/?op=set_zone", "zone=default&nodes=" + rack.SystemID, 200, "null"},
		{admin, "POST", "regioncontrollers/?op=set_zone", "zone=nowhere&nodes=" + regions[0].SystemID, 400, ""},
		{user, "POST", at + "?op=power_on", "", 403, ""},
		{admin, "POST", at + "?op=power_on", "", 200, `"hostname": "rack-1"`},
		{admin, "POST", at + "?op=power_off", "stop_mode=soft", 200, `"hostname": "rack-1"`},
		{admin, "POST", at + "?op=abort", "", 409, "Cannot abort in current state"},
		{admin, "POST", at + "?op=override_failed_testing", "", 409, ""},
		{admin, "GET", at + "?op=details", "", 200, "lshw"},
		{admin, "GET", region + "?op=details", "", 200, "lldp"},
		{user, "DELETE", region, "", 403, ""},
		{admin, "DELETE", region, "", 400, "may be running"},
		{admin, "DELETE", region + "?force=true", "", 204, ""},
		{admin, "DELETE", "regioncontrollers/" + regions[1].SystemID + "/?force=true", "", 400, "may be running"},
		{admin, "GET", region, "", 404, ""},
	})
	// A rack that nobody can switch from here: off answers null. On is accepted when somebody will go there, and says why not otherwise.
	run(t, []step{
		{admin, "PUT", at, "power_type=manual", 200, ""},
		{admin, "POST", at + "?op=power_off", "", 200, "null"},
		{admin, "POST", at + "?op=power_on", "", 200, `"hostname": "rack-1"`},
		{admin, "GET", at + "?op=query_power_state", "", 200, `"state": "unknown"`},
	})
}
