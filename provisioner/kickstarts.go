package provisioner

import (
	"context"
	"errors"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/preseed"
	"github.com/ingot-metal/ingot/provisioner/preseed/kickstart"
	"github.com/ingot-metal/ingot/provisioner/preseed/windows"
	"github.com/ingot-metal/ingot/storage"
)

// What systems that are not unpacked from a root file system are given: Anaconda its kickstart, Windows the files of its first start.

// kickstartOf writes the document by which a machine is installed from a tree.
func (s *Service) kickstartOf(tx *storage.Tx, j preseedJob) ([]byte, error) {
	if err := j.needImage(); err != nil {
		return nil, err
	}
	n, image := j.node, *j.image
	if !IsTree(image) {
		return nil, Errorf(Invalid, "Failed to render preseed: kickstart is for install trees, and %s is an image.", image.Name)
	}
	t, err := tx.InstallTreeNamed(image.Name, archOf(n))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, Errorf(Invalid, "Failed to render preseed: the install tree %s for %s is gone.", image.Name, archOf(n))
	}
	if err != nil {
		return nil, err
	}
	plan, err := s.installPlan(tx, n, image, planContext{j.base + metadataPath, j.token})
	if err != nil {
		return nil, badPreseed(err)
	}
	in := kickstart.Input{OSystem: plan.OSystem, Series: plan.Series, Firmware: plan.Firmware, Tree: t.URL, Packages: t.Packages, Proxy: plan.Proxy, Timezone: t.Timezone,
		Language: t.Language, Keyboard: t.Keyboard, Hostname: n.Hostname, Storage: plan.Storage, KernelOpts: plan.KernelOpts, SwapSize: plan.SwapSize,
		SystemID: n.SystemID, MetadataURL: j.base + metadataPath, Credentials: credentials(j.token), Seed: plan.Seed}
	for _, text := range t.Repositories {
		r, err := treeRepo(text)
		if err != nil {
			return nil, badPreseed(err)
		}
		in.Repos = append(in.Repos, r)
	}
	if in.NICs, _, err = s.machineNICs(tx, n); err != nil {
		return nil, err
	}
	if d, err := tx.Domain(n.DomainID); err == nil && d.Name != "" {
		in.Hostname += "." + d.Name
	}
	ntp, err := s.settingText(tx, "ntp_servers", "")
	if err != nil {
		return nil, err
	}
	in.NTP = strings.FieldsFunc(ntp, func(r rune) bool { return r == ',' || r == ' ' })
	if n.OwnerID != nil {
		if in.SSHKeys, err = tx.SSHKeysOf(*n.OwnerID); err != nil {
			return nil, err
		}
	}
	text, err := kickstart.Render(in)
	return []byte(text), badPreseed(err)
}

// Kickstart is the document that Anaconda fetches on a machine that is being installed from a tree. It holds the machine's credentials, so nobody
// gets it but while the machine installs itself. base says by which address the machine reaches its rack.
func (s *Service) Kickstart(ctx context.Context, systemID string, base func(*storage.Node) string) (string, error) {
	n, token, err := s.MachineCredentials(ctx, systemID)
	if err != nil {
		return "", err
	}
	var d PreseedDocument
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if n, err = tx.NodeByID(n.ID); err != nil {
			return err
		}
		if n.Status != storage.StatusDeploying || !n.Netboot || n.EphemeralDeploy {
			return Errorf(Conflict, "The machine %s is not being installed.", n.SystemID)
		}
		image, err := imageIfAny(tx, &n)
		if err != nil {
			return err
		}
		if image != nil && !IsTree(*image) {
			return Errorf(Conflict, "The machine %s is not being installed by kickstart: %s is an image.", n.SystemID, image.Name)
		}
		j := preseedJob{node: &n, image: image, base: base(&n), token: token, secret: true}
		j.prefix, _ = preseed.PrefixByName(preseed.PrefixKickstart)
		d, err = s.renderPreseed(tx, j)
		return err
	})
	if err != nil {
		return "", err
	}
	return string(d.Content), s.preseedFailed(ctx, &n, d.Err)
}

// Windows -------------------------------------------------------------------------------------------------------------------------

// The secrets that a Windows machine has of its deployment.
const (
	secretPassword = "windows-administrator"
	secretLicense  = "license-key"
)

const msgLicense = "Invalid license key."

// LicenseRequired says whether a series of Windows does not install itself without a product key: the servers, but not Hyper-V's own, and
// Windows 10 Enterprise.
func LicenseRequired(osystem, series string) bool {
	if osystem != "windows" || strings.Contains(series, "hv") {
		return false
	}
	for _, p := range []string{"win2008r2", "win2012", "win2016", "win2019", "win10ent"} {
		if strings.HasPrefix(series, p) {
			return true
		}
	}
	return false
}

// licenseFor is the key that a deployment uses: the one that the request names, else that of the series.
func (s *Service) licenseFor(tx *storage.Tx, osystem, series string, given *string) (string, error) {
	key := strings.TrimSpace(deref(given, ""))
	pattern := licensedSystems[osystem]
	switch {
	case key != "" && pattern == nil:
		return "", FieldError("license_key", "%s has no license keys.", osystem)
	case pattern == nil:
		return "", nil
	case key != "":
		if !pattern.MatchString(key) {
			return "", FieldError("license_key", msgLicense)
		}
		return key, nil
	}
	stored, err := tx.LicenseKeyOf(osystem, series)
	switch {
	case err == nil:
		if !pattern.MatchString(stored.LicenseKey) { // of another release's rules
			return "", FieldError("license_key", msgLicense)
		}
		return stored.LicenseKey, nil
	case !isNotFound(err):
		return "", err
	case LicenseRequired(osystem, series):
		return "", FieldError("license_key", msgLicense+" %s/%s needs one: give license_key, or store one for the series.", osystem, series)
	}
	return "", nil
}

// prepareSystem makes up what a deployment needs beside its plan, and checks that its documents can be written, while the user can still be told.
func (s *Service) prepareSystem(tx *storage.Tx, n *storage.Node, image storage.Image, license *string) error {
	osystem, series, _ := strings.Cut(image.Name, "/")
	key, err := s.licenseFor(tx, osystem, series, license)
	if err != nil {
		return err
	}
	if osystem == "windows" {
		if _, err := s.nodeToken(tx, n.ID); err != nil {
			return err
		}
		if err := tx.SetNodeSecret(n.ID, secretPassword, windowsPassword()); err != nil {
			return err
		}
		if err := tx.SetNodeSecret(n.ID, secretLicense, key); err != nil {
			return err
		}
	}
	for prefix, wanted := range map[string]bool{preseed.PrefixKickstart: IsTree(image), preseed.PrefixUnattend: osystem == "windows"} {
		if !wanted {
			continue
		}
		j := preseedJob{node: n, image: &image, base: rackBase(n), token: redactedToken, secret: true}
		j.prefix, _ = preseed.PrefixByName(prefix)
		d, err := s.renderPreseed(tx, j)
		if err == nil {
			err = d.Err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// windowsPassword is one that Windows' rules take: 24 letters and digits with each kind among them, and a dash.
func windowsPassword() string {
	for {
		p := randomToken(12) + "-" + randomToken(12)
		if strings.ContainsAny(p, "abcdefghijklmnopqrstuvwxyz") && strings.ContainsAny(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") && strings.ContainsAny(p, "0123456789") {
			return p
		}
	}
}

// windowsInput is what the files of a machine's first start are made of. Without secrets there are no password and no license key in it.
func (s *Service) windowsInput(tx *storage.Tx, n *storage.Node, metadataURL string, token storage.NodeToken, secret bool) (windows.Input, error) {
	w := windows.Input{Arch: archOf(n), Hostname: n.Hostname, MetadataURL: metadataURL, Credentials: credentials(token)}
	var err error
	if w.NICs, w.Search, err = s.machineNICs(tx, n); err != nil {
		return w, err
	}
	for name, dst := range map[string]*string{secretPassword: &w.Password, secretLicense: &w.ProductKey} {
		if !secret {
			continue
		}
		v, err := tx.NodeSecret(n.ID, name)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return w, err
		}
		*dst = v
	}
	if w.Organization, err = s.settingText(tx, "maas_name", ""); err != nil {
		return w, err
	}
	if n.OwnerID != nil {
		owner, err := tx.User(*n.OwnerID)
		if err != nil {
			return w, err
		}
		w.Owner = owner.Username
		if w.SSHKeys, err = tx.SSHKeysOf(*n.OwnerID); err != nil {
			return w, err
		}
	}
	return w, nil
}

// unattendOf is the answer file of a Windows machine.
func (s *Service) unattendOf(tx *storage.Tx, j preseedJob) ([]byte, error) {
	if err := j.needImage(); err != nil {
		return nil, err
	}
	if osystem, _, _ := strings.Cut(j.image.Name, "/"); osystem != "windows" {
		return nil, Errorf(Invalid, "Failed to render preseed: answer files are for Windows, not for %s.", j.image.Name)
	}
	w, err := s.windowsInput(tx, j.node, j.base+metadataPath, j.token, j.secret)
	if err != nil {
		return nil, err
	}
	files, err := windows.Files(w)
	for _, f := range files {
		if f.Path == windows.UnattendPath {
			return []byte(f.Content), nil
		}
	}
	return nil, badPreseed(err)
}

// windowsSeed is the seed of a plan for Windows, whose system reads none of cloud-init's files. An operator's template takes the place of the answer
// file.
func (s *Service) windowsSeed(tx *storage.Tx, n *storage.Node, image storage.Image, pc planContext) ([]api.SeedFile, error) {
	w, err := s.windowsInput(tx, n, pc.MetadataURL, pc.Token, true)
	if err != nil {
		return nil, err
	}
	files, err := windows.Files(w)
	if err != nil {
		return nil, err
	}
	j := preseedJob{node: n, image: &image, base: strings.TrimSuffix(pc.MetadataURL, metadataPath), token: pc.Token, secret: true}
	j.prefix, _ = preseed.PrefixByName(preseed.PrefixUnattend)
	if _, found, err := s.templateFor(tx, j, preseed.Names(j.prefix, j.target())); err != nil || !found {
		return files, err
	}
	d, err := s.renderPreseed(tx, j)
	if err == nil {
		err = d.Err
	}
	if err != nil {
		return nil, err
	}
	for i := range files {
		if strings.EqualFold(files[i].Path[strings.LastIndex(files[i].Path, "/"):], "/unattend.xml") {
			files[i].Content = string(d.Content)
		}
	}
	return files, nil
}

// TakeMachinePassword tells a Windows machine's owner, once, the password of its Administrator.
func (s *Service) TakeMachinePassword(ctx context.Context, systemID string) (password string, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return "", err
	}
	_, err = s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		switch {
		case n.OwnerID == nil || *n.OwnerID != a.User.ID:
			return Errorf(Forbidden, "The password of the machine %s is told to its owner only.", n.SystemID)
		case n.Status != storage.StatusDeployed:
			return Errorf(Conflict, "The password of the machine %s is told when it is Deployed, not while it is %s.", n.SystemID, n.Status)
		}
		password, err = tx.TakeNodeSecret(n.ID, secretPassword)
		if errors.Is(err, storage.ErrNotFound) {
			return Errorf(NotFound, "The machine %s has no password to tell: it was taken already, or its system is not Windows.", n.SystemID)
		}
		if err != nil {
			return err
		}
		return s.audit(tx, a, "NODE", "Took the Administrator's password of '%s'.", n.Hostname)
	})
	return password, err
}
