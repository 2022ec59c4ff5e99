package clients

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/event"
	"github.com/canonical/gomaasclient/entity/notification"
)

func walkPeople(w *walk) {
	u := get[*entity.User](w, "Users.Create", &entity.UserParams{UserName: "walker", Password: "a long password", Email: "walker@example.com"})
	equal(w, "user", []any{u.UserName, u.Email, u.IsSuperUser, u.IsLocal}, []any{"walker", "walker@example.com", false, true})
	equal(w, "user read", get[*entity.User](w, "User.Get", "walker").Email, "walker@example.com")
	find(w, "administrator", get[[]entity.User](w, "Users.Get"), func(x entity.User) bool { return x.UserName == "admin" && x.IsSuperUser })
	equal(w, "whoami", get[*entity.User](w, "Users.Whoami").UserName, "admin")
	get[*entity.User](w, "Users.Create", &entity.UserParams{UserName: "second", Password: "a long password", Email: "second@example.com", IsSuperUser: true})
	w.do("User.Delete", &entity.UserDeleteParams{UserName: "walker", TransferResourcesTo: "second"})
	w.do("User.Delete", &entity.UserDeleteParams{UserName: "second"})
	w.refused(404, "", "User.Get", "walker")

	tok := get[*entity.AuthorisationToken](w, "Account.CreateAuthorisationToken", "walk")
	if tok.TokenKey == "" || tok.TokenSecret == "" || tok.ConsumerKey == "" || tok.Name != "walk" {
		w.t.Fatalf("token: %+v", tok)
	}
	other := newWalk(w.t, site{url: w.site.url, key: tok.ConsumerKey + ":" + tok.TokenKey + ":" + tok.TokenSecret})
	equal(w, "whoami by the new token", get[*entity.User](other, "Users.Whoami").UserName, "admin")
	w.do("Account.UpdateTokenName", "walk-2", tok.TokenKey)
	item := find(w, "token", get[[]entity.AuthorisationTokenListItem](w, "Account.ListAuthorisationTokens"), func(x entity.AuthorisationTokenListItem) bool { return x.Name == "walk-2" })
	if !strings.Contains(item.Token, tok.TokenKey) {
		w.t.Errorf("token %q in the list", item.Token)
	}
	w.do("Account.DeleteAuthorisationToken", tok.TokenKey)
	other.refused(401, "", "Users.Whoami")

	line := sshPublicKey(w.t)
	k := get[*entity.SSHKey](w, "SSHKeys.Create", line)
	equal(w, "key", get[*entity.SSHKey](w, "SSHKey.Get", k.ID).Key, line)
	find(w, "key", get[[]entity.SSHKey](w, "SSHKeys.Get"), func(x entity.SSHKey) bool { return x.ID == k.ID })
	w.do("SSHKey.Delete", k.ID)
	w.refused(404, "", "SSHKey.Get", k.ID)
	// Launchpad is not reached from here; a source of no known kind is refused before anybody is asked.
	w.refused(400, "", "SSHKeys.Import", "nowhere:somebody")

	cert := certificate(w.t)
	s := get[*entity.SSLKey](w, "SSLKeys.Create", cert)
	equal(w, "certificate", strings.TrimSpace(get[*entity.SSLKey](w, "SSLKey.Get", s.ID).Key), strings.TrimSpace(cert))
	find(w, "certificate", get[[]entity.SSLKey](w, "SSLKeys.Get"), func(x entity.SSLKey) bool { return x.ID == s.ID })
	w.do("SSLKey.Delete", s.ID)
	w.refused(404, "", "SSLKey.Get", s.ID)
	w.refused(400, "", "SSLKeys.Create", "no certificate")
}

func walkSite(w *walk) {
	v := get[*entity.Version](w, "Version.Get")
	if !slices.Contains(v.Capabilities, "network-deployment-ubuntu") || !strings.HasPrefix(v.Version, "3.") {
		w.t.Errorf("version: %+v", v)
	}

	z := get[*entity.Zone](w, "Zones.Create", &entity.ZoneParams{Name: "walk-zone", Description: "two words"})
	equal(w, "zone", []string{z.Name, z.Description}, []string{"walk-zone", "two words"})
	get[*entity.Zone](w, "Zone.Update", "walk-zone", &entity.ZoneParams{Name: "walk-zone-2", Description: "d"})
	equal(w, "zone read", get[*entity.Zone](w, "Zone.Get", "walk-zone-2").ID, z.ID)
	find(w, "zone", get[[]entity.Zone](w, "Zones.Get"), func(x entity.Zone) bool { return x.ID == z.ID })
	w.do("Zone.Delete", "walk-zone-2")
	w.refused(404, "", "Zone.Get", "walk-zone-2")

	p := get[*entity.ResourcePool](w, "ResourcePools.Create", &entity.ResourcePoolParams{Name: "walk-pool", Description: "two words"})
	equal(w, "pool", []string{p.Name, p.Description}, []string{"walk-pool", "two words"})
	get[*entity.ResourcePool](w, "ResourcePool.Update", p.ID, &entity.ResourcePoolParams{Name: "walk-pool-2"})
	equal(w, "pool read", get[*entity.ResourcePool](w, "ResourcePool.Get", p.ID).Name, "walk-pool-2")
	equal(w, "pool by name", get[*entity.ResourcePool](w, "ResourcePool.GetByName", "walk-pool-2").ID, p.ID)
	equal(w, "pool after update by name", get[*entity.ResourcePool](w, "ResourcePool.UpdateByName", "walk-pool-2", &entity.ResourcePoolParams{Name: "walk-pool-3"}).Name, "walk-pool-3")
	w.do("ResourcePool.DeleteByName", "walk-pool-3")
	p = get[*entity.ResourcePool](w, "ResourcePools.Create", &entity.ResourcePoolParams{Name: "walk-pool-4"})
	find(w, "pool 0", get[[]entity.ResourcePool](w, "ResourcePools.Get"), func(x entity.ResourcePool) bool { return x.ID == 0 && x.Name == "default" })
	w.do("ResourcePool.Delete", p.ID)
	w.refused(404, "", "ResourcePool.Get", p.ID)

	for name, value := range map[string]string{"maas_name": "Walk & co", "default_min_hwe_kernel": "", "ntp_external_only": "true", "node_timeout": "45"} {
		before := get[[]byte](w, "MAASServer.Get", name)
		w.do("MAASServer.Post", name, value)
		var got any
		if err := json.Unmarshal(get[[]byte](w, "MAASServer.Get", name), &got); err != nil {
			w.t.Errorf("get_config %s: %v", name, err)
		}
		want := map[string]any{"maas_name": "Walk & co", "default_min_hwe_kernel": "", "ntp_external_only": true, "node_timeout": 45.0}[name]
		equal(w, name, got, want)
		var old any
		if err := json.Unmarshal(before, &old); err != nil {
			w.t.Fatal(err)
		}
		if s, ok := old.(string); ok {
			w.do("MAASServer.Post", name, s)
		} else {
			w.do("MAASServer.Post", name, string(before))
		}
	}
	w.refused(400, "", "MAASServer.Get", "no_such_setting")

	ev := get[*entity.EventsResp](w, "Events.Get", &entity.EventParams{Limit: "5", Level: event.INFO})
	if ev.Count != len(ev.Events) || ev.Count == 0 || ev.Count > 5 || ev.Events[0].Created == "" || !strings.Contains(ev.NextURI, "op=query") {
		w.t.Errorf("events: %+v", ev)
	}

	n := get[*entity.Notification](w, "Notifications.Create", &entity.NotificationParams{Message: "hello", Category: notification.WARNING, Ident: "walk", Users: true, Admins: true, Dismissable: true})
	equal(w, "notification", []any{n.Message, n.Category, n.Ident, n.Users, n.Admins, n.Dismissable}, []any{"hello", notification.WARNING, "walk", true, true, true})
	get[*entity.Notification](w, "Notification.Update", n.ID, &entity.NotificationParams{Message: "bye", Category: notification.INFO, Dismissable: true})
	equal(w, "notification read", get[*entity.Notification](w, "Notification.Get", n.ID).Message, "bye")
	find(w, "notification", get[[]entity.Notification](w, "Notifications.Get"), func(x entity.Notification) bool { return x.ID == n.ID })
	w.do("Notification.Dismiss", n.ID)
	if slices.ContainsFunc(get[[]entity.Notification](w, "Notifications.Get"), func(x entity.Notification) bool { return x.ID == n.ID }) {
		w.t.Error("a dismissed notification is listed")
	}
	w.do("Notification.Delete", n.ID)

	key := "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX"
	l := get[*entity.LicenseKey](w, "LicenseKeys.Create", &entity.LicenseKeyParams{OSystem: "windows", DistroSeries: "win2016", LicenseKey: key})
	equal(w, "license key", []string{l.OSystem, l.DistroSeries, l.LicenseKey}, []string{"windows", "win2016", key})
	get[*entity.LicenseKey](w, "LicenseKey.Update", "windows", "win2016", &entity.LicenseKeyParams{OSystem: "windows", DistroSeries: "win2016", LicenseKey: strings.ReplaceAll(key, "X", "Y")})
	equal(w, "license key read", get[*entity.LicenseKey](w, "LicenseKey.Get", "windows", "win2016").LicenseKey, "YYYYY-YYYYY-YYYYY-YYYYY-YYYYY")
	equal(w, "license keys", len(get[[]entity.LicenseKey](w, "LicenseKeys.Get")), 1)
	w.do("LicenseKey.Delete", "windows", "win2016")
	w.refused(404, "", "LicenseKey.Get", "windows", "win2016")

	r := get[*entity.PackageRepository](w, "PackageRepositories.Create", &entity.PackageRepositoryParams{Name: "walk repo", URL: "http://archive.example/ubuntu",
		Distributions: "jammy,noble", Components: "main,universe", Arches: "amd64,arm64", Enabled: ptr(true)})
	equal(w, "repository", []any{r.Name, r.URL, r.Distributions, r.Components, r.Arches, r.Enabled},
		[]any{"walk repo", "http://archive.example/ubuntu", []string{"jammy", "noble"}, []string{"main", "universe"}, []string{"amd64", "arm64"}, true})
	get[*entity.PackageRepository](w, "PackageRepository.Update", r.ID, &entity.PackageRepositoryParams{Name: "walk repo 2", URL: r.URL, Enabled: ptr(false)})
	back := get[*entity.PackageRepository](w, "PackageRepository.Get", r.ID)
	equal(w, "repository read", []any{back.Name, back.Enabled}, []any{"walk repo 2", false})
	find(w, "repository", get[[]entity.PackageRepository](w, "PackageRepositories.Get"), func(x entity.PackageRepository) bool { return x.ID == r.ID })
	w.do("PackageRepository.Delete", r.ID)
}

func walkImages(w *walk) {
	b := get[*entity.BootSource](w, "BootSources.Create", &entity.BootSourceParams{URL: "http://images.example/stream/", KeyringFilename: "/usr/share/keyrings/k.gpg"})
	equal(w, "boot source", []string{b.URL, b.KeyringFilename}, []string{"http://images.example/stream/", "/usr/share/keyrings/k.gpg"})
	get[*entity.BootSource](w, "BootSource.Update", b.ID, &entity.BootSourceParams{URL: "http://images.example/daily/", KeyringFilename: "/usr/share/keyrings/k.gpg"})
	equal(w, "boot source read", get[*entity.BootSource](w, "BootSource.Get", b.ID).URL, "http://images.example/daily/")
	find(w, "boot source", get[[]entity.BootSource](w, "BootSources.Get"), func(x entity.BootSource) bool { return x.ID == b.ID })
	s := get[*entity.BootSourceSelection](w, "BootSourceSelections.Create", b.ID, &entity.BootSourceSelectionParams{OS: "ubuntu", Release: "jammy", Arches: []string{"amd64", "arm64"}, Subarches: []string{"*"}, Labels: []string{"*"}})
	equal(w, "selection", []any{s.OS, s.Release, s.Arches, s.BootSourceID}, []any{"ubuntu", "jammy", []string{"amd64", "arm64"}, b.ID})
	get[*entity.BootSourceSelection](w, "BootSourceSelection.Update", b.ID, s.ID, &entity.BootSourceSelectionParams{OS: "ubuntu", Release: "noble", Arches: []string{"amd64"}})
	equal(w, "selection read", get[*entity.BootSourceSelection](w, "BootSourceSelection.Get", b.ID, s.ID).Release, "noble")
	equal(w, "selections", len(get[[]entity.BootSourceSelection](w, "BootSourceSelections.Get", b.ID)), 1)
	w.do("BootSourceSelection.Delete", b.ID, s.ID)
	w.do("BootSource.Delete", b.ID)
	w.refused(404, "", "BootSource.Get", b.ID)

	w.broken("not implemented", "BootResources.Create", &entity.BootResourceParams{Name: "custom/walk"})
	upload(w.t, w.raw, "custom/walk", "Walk image", []byte("no real image"))
	img := find(w, "image", get[[]entity.BootResource](w, "BootResources.Get", &entity.BootResourcesReadParams{}), func(x entity.BootResource) bool { return x.Title == "Walk image" })
	img = *get[*entity.BootResource](w, "BootResource.Get", img.ID)
	if len(img.Sets) != 1 || img.Architecture != "amd64/generic" || img.Type != "Uploaded" {
		w.t.Errorf("image: %+v", img)
	}
	for _, set := range img.Sets {
		equal(w, "set", []any{set.Complete, set.Size, len(set.Files)}, []any{true, int64(len("no real image")), 1})
	}
	w.do("BootResource.Delete", img.ID)
	w.refused(404, "", "BootResource.Get", img.ID)
	equal(w, "importing", get[bool](w, "BootResources.IsImporting"), false)
	// No test asks the internet: the source that every installation begins with is one of this machine that nobody answers at.
	get[*entity.BootSource](w, "BootSource.Update", 1, &entity.BootSourceParams{URL: "http://127.0.0.1:1/none", KeyringFilename: "/usr/share/keyrings/k.gpg"})
	w.do("BootResources.Import")
	w.do("BootResources.StopImport")
}

func walkScripts(w *walk) {
	body := []byte("#!/bin/sh\necho first\n")
	s := get[*entity.NodeScript](w, "NodeScripts.Create", &entity.NodeScriptParams{Name: "walk-script", Title: "Walk", Description: "two words", ScriptType: "testing", HardwareType: "cpu",
		Parallel: "instance", Timeout: "00:05:00", Tags: "one,two", Comment: "born", MayReboot: ptr(true)}, body)
	equal(w, "script", []any{s.Name, s.Title, s.Description, s.Type, s.HardwareType, s.Parallel, s.MayReboot, s.Destructive, s.Timeout},
		[]any{"walk-script", "Walk", "two words", entity.ScriptTypeTesting, entity.ScriptHardwareTypeCPU, entity.ScriptParallelInstance, true, false, "0:05:00"})
	for _, tag := range []string{"one", "two"} {
		if !slices.Contains(s.Tags, tag) {
			w.t.Errorf("script tags %q, want %s", s.Tags, tag)
		}
	}
	second := []byte("#!/bin/sh\necho second\n")
	s = get[*entity.NodeScript](w, "NodeScript.Update", "walk-script", &entity.NodeScriptParams{Title: "Walk 2", Comment: "grown"}, second)
	equal(w, "title", s.Title, "Walk 2")
	s = get[*entity.NodeScript](w, "NodeScript.Get", "walk-script", true)
	equal(w, "history", len(s.History), 2)
	old := find(w, "first revision", s.History, func(h entity.NodeScriptHistory) bool { return h.Comment == "born" })
	equal(w, "newest text", string(get[[]byte](w, "NodeScript.Download", "walk-script", find(w, "second revision", s.History, func(h entity.NodeScriptHistory) bool { return h.Comment == "grown" }).ID)), string(second))
	equal(w, "oldest text", string(get[[]byte](w, "NodeScript.Download", "walk-script", old.ID)), string(body))
	equal(w, "tag", slices.Contains(get[*entity.NodeScript](w, "NodeScript.AddTag", "walk-script", "three").Tags, "three"), true)
	equal(w, "tag gone", slices.Contains(get[*entity.NodeScript](w, "NodeScript.RemoveTag", "walk-script", "three").Tags, "three"), false)
	get[*entity.NodeScript](w, "NodeScript.Revert", "walk-script", old.ID)
	equal(w, "history after revert", len(get[*entity.NodeScript](w, "NodeScript.Get", "walk-script", false).History), 1)
	find(w, "script", get[[]entity.NodeScript](w, "NodeScripts.Get", &entity.NodeScriptReadParams{Type: "testing", HardwareType: "cpu"}), func(x entity.NodeScript) bool { return x.Name == "walk-script" })
	w.do("NodeScript.Delete", "walk-script")
	w.refused(404, "", "NodeScript.Get", "walk-script", false)
}

func walkRacks(w *walk) {
	all := get[[]entity.RackController](w, "RackControllers.Get", &entity.RackControllersGetParams{})
	equal(w, "racks", len(all), 1)
	r := get[*entity.RackController](w, "RackController.Get", all[0].SystemID)
	equal(w, "racks of that name", len(get[[]entity.RackController](w, "RackControllers.Get", &entity.RackControllersGetParams{Hostname: []string{r.Hostname}})), 1)
	equal(w, "racks of no such name", len(get[[]entity.RackController](w, "RackControllers.Get", &entity.RackControllersGetParams{Hostname: []string{"nobody"}})), 0)
	if len(r.ServiceSet) == 0 || r.ServiceSet[0].Name == "" || r.ServiceSet[0].Status == "" {
		w.t.Errorf("services: %+v", r.ServiceSet)
	}
	z := get[*entity.Zone](w, "Zones.Create", &entity.ZoneParams{Name: "walk-racks"})
	w.do("RackControllers.SetZone", &entity.RackControllerSetZoneParams{Zone: z.Name, Nodes: []string{r.SystemID}})
	equal(w, "zone", get[*entity.RackController](w, "RackController.Get", r.SystemID).Zone.Name, z.Name)
	up := get[*entity.RackController](w, "RackController.Update", r.SystemID, &entity.RackControllerParams{Zone: "default", PowerType: "manual"}, map[string]any(nil))
	equal(w, "zone and power after update", []string{up.Zone.Name, up.PowerType}, []string{"default", "manual"})
	get[map[string]any](w, "RackController.GetPowerParameters", r.SystemID)
	equal(w, "power state", get[*entity.RackControllerPowerState](w, "RackController.GetPowerState", r.SystemID).State, "unknown")
	w.do("RackController.PowerOn", r.SystemID, &entity.RackControllerPowerOnParams{Comment: "on"})
	w.do("RackController.PowerOff", r.SystemID, &entity.RackControllerPowerOffParams{Comment: "off"})
	w.do("RackController.Details", r.SystemID)
	w.refused(409, "", "RackController.Abort", r.SystemID, "nothing to abort")
	w.refused(409, "", "RackController.OverrideFailedTesting", r.SystemID, "")
	w.refused(400, "", "RackController.Delete", r.SystemID)
	w.do("Zone.Delete", z.Name)
	// MAAS's own answer does not fit the client either: the default of a field of several choices is a list.
	w.broken("cannot unmarshal array into Go struct field", "RackControllers.DescribePowerTypes")
	equal(w, "MAC of a lab machine", get[bool](w, "RackControllers.IsRegistered", "52:54:00:77:00:01"), true)
	equal(w, "MAC of nobody", get[bool](w, "RackControllers.IsRegistered", "52:54:00:00:00:01"), false)
	// These two give a map to a function that takes structs only. The operations, by hand:
	w.broken("expects struct input", "RackControllers.GetPowerParameters", []string{r.SystemID})
	w.broken("expects struct input", "RackController.Test", r.SystemID, map[string]any{})
	var params map[string]map[string]any
	if err := w.raw.GetSubObject("rackcontrollers").Get("power_parameters", url.Values{"id": {r.SystemID}}, func(b []byte) error { return json.Unmarshal(b, &params) }); err != nil || params[r.SystemID] == nil {
		w.t.Errorf("power parameters of racks: %v, %v", params, err)
	}
}

func walkPods(w *walk) {
	// Pods are gone since MAAS 3.8, with this answer.
	w.refused(410, "", "VMHosts.Get")
	w.refused(410, "", "VMHosts.Create", &entity.VMHostParams{Type: "virsh"})
	w.refused(410, "", "VMHost.Get", 1)
	w.refused(410, "", "VMHost.Update", 1, &entity.VMHostParams{Name: "x"})
	w.refused(410, "", "VMHost.Delete", 1)
	w.refused(410, "", "VMHost.Compose", 1, &entity.VMHostMachineParams{})
	w.refused(410, "", "VMHost.Refresh", 1)
	w.refused(410, "", "VMHost.GetParameters", 1)
}
