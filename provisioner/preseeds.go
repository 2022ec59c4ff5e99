package provisioner

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/provisioner/preseed"
	"github.com/ingot-metal/ingot/storage"
)

// What machines and other installers than the agent are given, with what operators' templates make of it.

// redacted stands for what somebody may not see, and for what does not exist yet.
const redacted = "REDACTED"

var redactedToken = storage.NodeToken{ConsumerKey: redacted, TokenKey: redacted, TokenSecret: redacted}

// The path of the metadata service below a rack's address.
const metadataPath = "/MAAS/metadata/"

// PreseedDocument is a rendered document.
type PreseedDocument struct {
	Prefix    preseed.Prefix
	Template  string   // the name of the operators' template that counted
	LookedFor []string // where one was looked for
	Warnings  []string
	Content   []byte
	Err       error // what is wrong with it; Content is empty then
}

// preseedJob is what one document is made for.
type preseedJob struct {
	prefix preseed.Prefix
	node   *storage.Node  // nil: a machine that nobody knows
	image  *storage.Image // what is or would be installed; nil: not decided, or gone
	base   string         // http://rack:5248
	token  storage.NodeToken
	secret bool // license keys may be shown
	// installer says that the environment is Ubuntu Server's installer, which ends its boot by itself.
	installer bool
	// text, when it is not nil, is tried in place of the stored template of name.
	text *string
	name string
}

// target is what templates are looked for.
func (j preseedJob) target() preseed.Target {
	var t preseed.Target
	if n := j.node; n != nil {
		t.OSystem, t.Release, t.Hostname = n.Osystem, n.DistroSeries, n.Hostname
		if j.image != nil {
			t.OSystem, t.Release, _ = strings.Cut(j.image.Name, "/")
		}
		t.Arch, t.Subarch, _ = strings.Cut(n.Architecture, "/")
	}
	return t
}

// rackBase is the address of the rack that a machine booted from last.
func rackBase(n *storage.Node) string {
	if a, err := netip.ParseAddr(n.BootRackIP); err == nil {
		return "http://" + net.JoinHostPort(a.String(), "5248")
	}
	return "http://rack.invalid:5248" // it has not met one yet
}

// renderPreseed makes a document. The error is a fault of ours or of the store; what is wrong with the document itself stands in it.
func (s *Service) renderPreseed(tx *storage.Tx, j preseedJob) (PreseedDocument, error) {
	d := PreseedDocument{Prefix: j.prefix}
	target := j.target()
	d.LookedFor = preseed.Names(j.prefix, target)
	template, found, err := s.templateFor(tx, j, d.LookedFor)
	if err != nil {
		return d, err
	}
	if found {
		d.Template = template.Name
	}
	err = s.fillPreseed(tx, j, target, template.Content, found, &d)
	var rule *Error
	if errors.As(err, &rule) || err == nil {
		if d.Err = err; err != nil {
			d.Content = nil
		}
		return d, nil
	}
	return d, err
}

// templateFor finds the template that counts: the first of names that exists.
func (s *Service) templateFor(tx *storage.Tx, j preseedJob, names []string) (storage.PreseedTemplate, bool, error) {
	if j.text != nil {
		return storage.PreseedTemplate{Name: j.name, Content: *j.text}, true, nil
	}
	stored, err := tx.PreseedTemplatesNamed(names)
	if err != nil {
		return storage.PreseedTemplate{}, false, err
	}
	for _, name := range names {
		if i := slices.IndexFunc(stored, func(t storage.PreseedTemplate) bool { return t.Name == name }); i >= 0 {
			return stored[i], true, nil
		}
	}
	return storage.PreseedTemplate{}, false, nil
}

// badPreseed is the error of a document that cannot be made, in MAAS's words.
func badPreseed(err error) error {
	var rule *Error
	if err == nil || errors.As(err, &rule) {
		return err
	}
	return Errorf(Invalid, "Failed to render preseed: %v", err)
}

func (s *Service) fillPreseed(tx *storage.Tx, j preseedJob, target preseed.Target, template string, found bool, d *PreseedDocument) error {
	values, err := s.preseedValues(tx, j, target)
	if err != nil {
		return err
	}
	// over renders the template on top of what is built in, and reads it.
	over := func(builtin []byte) (out []byte, m map[string]any, err error) {
		t, err := preseed.ParseTemplate(d.Template, template)
		if err == nil {
			values.PreseedData = string(builtin)
			out, err = t.Execute(values.Map())
		}
		if err == nil {
			m, err = preseed.CheckOutput(j.prefix.Kind, out)
		}
		if err != nil {
			return nil, nil, Errorf(Invalid, "Failed to render preseed: template %s: %v", d.Template, err)
		}
		return out, m, nil
	}
	switch j.prefix.Name {
	case preseed.PrefixCurtinUserdata:
		c, err := s.curtin(tx, j, values.LicenseKey)
		if err != nil {
			return err
		}
		if d.Content, err = c.Render(); err != nil || !found {
			return badPreseed(err)
		}
		if _, c.Template, err = over(d.Content); err != nil {
			return err
		}
		doc, warnings, err := c.Document()
		if err != nil {
			return badPreseed(err)
		}
		d.Warnings = warnings
		d.Content, err = preseed.Marshal(doc)
		return badPreseed(err)
	case preseed.PrefixAutoinstall:
		a, err := s.autoinstall(tx, j)
		if err != nil {
			return err
		}
		if d.Content, err = a.Render(); err != nil || !found {
			return badPreseed(err)
		}
		_, m, err := over(d.Content)
		if err != nil {
			return err
		}
		if a.Template, err = preseed.AutoinstallTemplate(m); err == nil {
			d.Content, err = a.Render()
		}
		return badPreseed(err)
	case preseed.PrefixKickstart, preseed.PrefixUnattend:
		make := s.kickstartOf
		if j.prefix.Name == preseed.PrefixUnattend {
			make = s.unattendOf
		}
		if d.Content, err = make(tx, j); err != nil || !found {
			return badPreseed(err)
		}
		out, _, err := over(d.Content)
		d.Content = out
		return err
	default:
		if d.Content, err = environmentPreseed(j); err != nil || !found {
			return badPreseed(err)
		}
		out, _, err := over(d.Content)
		d.Content = out
		return err
	}
}

// environmentPreseed is the cloud-config of an ephemeral environment: where its data is, who it is, and how it ends.
func environmentPreseed(j preseedJob) ([]byte, error) {
	p := layout.Preseed{MetadataURL: j.base + metadataPath, PowerState: "poweroff", Timeout: 1800}
	n := j.node
	if n == nil {
		return p.Render()
	}
	p.StatusURL, p.SystemID, p.Timeout = j.base+metadataPath, n.SystemID, 3600
	p.Credentials = credentials(j.token)
	switch {
	case j.prefix.Name == preseed.PrefixCurtin:
		if p.MetadataURL, p.PowerState, p.Timeout = j.base+metadataPath+"curtin", "reboot", 1800; j.installer {
			p.PowerState = ""
		}
	case n.Status == storage.StatusDiskErasing:
		p.Timeout = 604800
	case n.EphemeralDeploy && in(n.Status, storage.StatusDeploying, storage.StatusDeployed): // the system that is started in memory stays
		p.MetadataURL, p.PowerState = j.base+metadataPath+"curtin", ""
	case in(n.Status, storage.StatusEnteringRescueMode, storage.StatusRescueMode):
		p.PowerState = ""
	case in(n.Status, storage.StatusCommissioning, storage.StatusTesting):
		if n.Status == storage.StatusTesting && n.PreviousStatus == storage.StatusDeployed { // back to the system that it interrupted
			p.PowerState, p.Timeout = "reboot", 1800
		}
		if hasFlag(n, flagEnableSSH) {
			p.PowerState = ""
		}
	}
	return p.Render()
}

func credentials(t storage.NodeToken) layout.Credentials {
	return layout.Credentials{ConsumerKey: t.ConsumerKey, TokenKey: t.TokenKey, TokenSecret: t.TokenSecret}
}

// preseedValues are what templates see.
func (s *Service) preseedValues(tx *storage.Tx, j preseedJob, target preseed.Target) (v preseed.Values, err error) {
	u, err := url.Parse(j.base)
	if err != nil {
		return v, err
	}
	v = preseed.Values{OSystem: target.OSystem, Release: target.Release, ServerHost: u.Hostname(), ServerURL: j.base + metadataPath,
		SyslogHostPort: net.JoinHostPort(u.Hostname(), "5247")}
	if v.HTTPProxy, err = s.machineProxy(tx); err != nil {
		return v, err
	}
	if remote, err := s.settingText(tx, "remote_syslog", ""); err != nil {
		return v, err
	} else if remote != "" {
		v.SyslogHostPort = remote
	}
	for _, name := range []string{"main_archive", "ports_archive"} {
		r, err := tx.DefaultArchive(name)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return v, err
		}
		if a, err := url.Parse(r.URL); err == nil {
			host, dir := a.Host, strings.Trim(a.Path, "/")
			if name == "main_archive" {
				v.MainArchiveHostname, v.MainPath = host, dir
			} else {
				v.PortsArchiveHostname, v.PortPath = host, dir
			}
		}
	}
	n := j.node
	if n == nil {
		return v, nil
	}
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return v, err
	}
	v.NodeDisablePXEURL = j.base + metadataPath + "latest/by-id/" + n.SystemID + "/"
	if v.LicenseKey = redacted; j.secret {
		if v.LicenseKey, err = machineLicense(tx, n, target); err != nil {
			return v, err
		}
	}
	v.Node = preseed.Node{SystemID: n.SystemID, Hostname: n.Hostname, FQDN: n.Hostname, Architecture: n.Architecture, Description: n.Description,
		Status: n.Status.String(), OSystem: target.OSystem, DistroSeries: target.Release, HWEKernel: n.HWEKernel, BIOSBootMethod: deref(n.BIOSBootMethod, ""),
		PowerType: n.PowerType, CPUCount: n.CPUCount, Memory: n.Memory, Tags: b.Tags, Annotations: b.OwnerData}
	if d := b.Cat.Domains[n.DomainID]; d != nil && d.Name != "" {
		v.Node.Domain, v.Node.FQDN = d.Name, n.Hostname+"."+d.Name
	}
	if z := b.Cat.Zones[n.ZoneID]; z != nil {
		v.Node.Zone = z.Name
	}
	if n.PoolID != nil && b.Cat.Pools[*n.PoolID] != nil {
		v.Node.Pool = b.Cat.Pools[*n.PoolID].Name
	}
	if n.OwnerID != nil {
		owner, err := tx.User(*n.OwnerID)
		if err != nil {
			return v, err
		}
		v.Node.Owner = owner.Username
	}
	return v, nil
}

// machineLicense is the license key of a machine's deployment, else that of the series.
func machineLicense(tx *storage.Tx, n *storage.Node, target preseed.Target) (string, error) {
	key, err := tx.NodeSecret(n.ID, secretLicense)
	if err == nil && key != "" && n.Osystem == target.OSystem && n.DistroSeries == target.Release {
		return key, nil
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return "", err
	}
	stored, err := tx.LicenseKeyOf(target.OSystem, target.Release)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	return stored.LicenseKey, err
}

// needImage answers what the documents of an installation are about.
func (j preseedJob) needImage() error {
	switch {
	case j.node == nil:
		return Errorf(Invalid, "Name a machine: this document is about its disks and network.")
	case j.image == nil:
		return Errorf(Invalid, "Failed to render preseed: the image %s/%s for %s is gone.", j.node.Osystem, j.node.DistroSeries, j.node.Architecture)
	}
	return nil
}

// machineNICs are a machine's interfaces for network configurations, and the domains that names are looked for in.
func (s *Service) machineNICs(tx *storage.Tx, n *storage.Node) ([]layout.NIC, []string, error) {
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return nil, nil, err
	}
	upstream, err := s.settingText(tx, "upstream_dns", "")
	if err != nil {
		return nil, nil, err
	}
	routes, err := tx.StaticRoutes()
	if err != nil {
		return nil, nil, err
	}
	var search []string
	if d := b.Cat.Domains[n.DomainID]; d != nil {
		search = []string{d.Name}
	}
	return layoutNICs(b, routes, strings.Fields(strings.ReplaceAll(upstream, ",", " "))), search, nil
}

// curtin is what curtin's configuration of a machine is made of.
func (s *Service) curtin(tx *storage.Tx, j preseedJob, license string) (*preseed.Curtin, error) {
	if err := j.needImage(); err != nil {
		return nil, err
	}
	n := j.node
	plan, err := s.installPlan(tx, n, *j.image, planContext{j.base + metadataPath, j.token})
	if err != nil {
		return nil, badPreseed(err)
	}
	arch, _, _ := strings.Cut(n.Architecture, "/")
	c := &preseed.Curtin{OSystem: plan.OSystem, Series: plan.Series, BaseImage: plan.BaseImage, Arch: arch, SystemID: n.SystemID, Hostname: n.Hostname,
		MetadataURL: j.base + metadataPath, Credentials: credentials(j.token), Filetype: j.image.Filetype, ImageURL: j.base + "/images/" + plan.Image.Path,
		Storage: plan.Storage, SwapSize: plan.SwapSize, KernelPackage: plan.KernelPackage, LicenseKey: license, Proxy: plan.Proxy}
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return nil, err
	}
	if c.TargetURL, err = s.targetURL(tx, b, c.MetadataURL); err != nil {
		return nil, err
	}
	if c.NICs, c.Search, err = s.machineNICs(tx, n); err != nil {
		return nil, err
	}
	if c.ForceV1, err = s.settingBool(tx, "force_v1_network_yaml", false); err != nil {
		return nil, err
	}
	if c.Verbose, err = s.settingBool(tx, "curtin_verbose", true); err != nil {
		return nil, err
	}
	if c.CrashDumps, err = s.settingBool(tx, "enable_kernel_crash_dump", false); err != nil {
		return nil, err
	}
	osystem, err := s.settingText(tx, "commissioning_osystem", "ubuntu")
	if err != nil {
		return nil, err
	}
	series, err := s.settingText(tx, "commissioning_distro_series", latestSeries)
	if err != nil {
		return nil, err
	}
	c.DefaultBase = osystem + "/" + series
	if n.OwnerID != nil {
		owner, err := tx.User(*n.OwnerID)
		if err != nil {
			return nil, err
		}
		c.OwnerEmail = owner.Email
	}
	c.Archive, c.Repositories, err = packageSources(tx, arch)
	return c, err
}

// packageSources are the package repositories for an architecture: Ubuntu's own, and the others that are enabled.
func packageSources(tx *storage.Tx, arch string) (archive *preseed.Repository, others []preseed.Repository, err error) {
	all, err := tx.PackageRepositories()
	for _, r := range all {
		if !slices.Contains(r.Arches, arch) || !r.Enabled && !r.IsDefault {
			continue
		}
		x := preseed.Repository{Name: r.Name, URL: r.URL, Key: r.Key, Distributions: r.Distributions, Components: r.Components,
			DisabledPockets: r.DisabledPockets, DisabledComponents: r.DisabledComponents, DisableSources: r.DisableSources}
		if r.IsDefault {
			archive = &x
		} else {
			others = append(others, x)
		}
	}
	return archive, others, err
}

// autoinstall is what Subiquity's document of a machine is made of.
func (s *Service) autoinstall(tx *storage.Tx, j preseedJob) (*preseed.Autoinstall, error) {
	if err := j.needImage(); err != nil {
		return nil, err
	}
	n := j.node
	if osystem, _, _ := strings.Cut(j.image.Name, "/"); osystem != "ubuntu" && osystem != "custom" {
		return nil, Errorf(Invalid, "Failed to render preseed: autoinstall is for Ubuntu Server's installer, not for %s.", j.image.Name)
	}
	plan, err := s.installPlan(tx, n, *j.image, planContext{j.base + metadataPath, j.token})
	if err != nil {
		return nil, badPreseed(err)
	}
	arch, _, _ := strings.Cut(n.Architecture, "/")
	a := &preseed.Autoinstall{SystemID: n.SystemID, Hostname: n.Hostname, MetadataURL: j.base + metadataPath, Credentials: credentials(j.token),
		Storage: plan.Storage, SwapSize: plan.SwapSize, KernelPackage: plan.KernelPackage, Proxy: plan.Proxy, Seed: plan.Seed}
	if a.NICs, a.Search, err = s.machineNICs(tx, n); err != nil {
		return nil, err
	}
	if a.Archive, a.Repositories, err = packageSources(tx, arch); err != nil {
		return nil, err
	}
	if n.OwnerID != nil {
		a.SSHKeys, err = tx.SSHKeysOf(*n.OwnerID)
	}
	return a, err
}

// imageIfAny is the image that a machine has or is being deployed with; nil when it is not decided or gone.
func imageIfAny(tx *storage.Tx, n *storage.Node) (*storage.Image, error) {
	if n.Osystem == "" {
		return nil, nil
	}
	images, err := tx.RootImages()
	if err != nil {
		return nil, err
	}
	if image, ok, _ := resolveImage(images, n.Architecture, n.Osystem+"/"+n.DistroSeries, "", ""); ok {
		return &image, nil
	}
	return nil, nil
}

// CurtinConfig is the configuration by which curtin would install a machine as it is being or was deployed. Its credentials and its license key are
// shown to those alone who may read the machine's credentials.
func (s *Service) CurtinConfig(ctx context.Context, systemID string) ([]byte, error) {
	var out []byte
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		b, err := s.readMachine(ctx, tx, systemID)
		if err != nil {
			return err
		}
		n := &b.Node
		if !in(n.Status, storage.StatusDeploying, storage.StatusDeployed, storage.StatusFailedDeployment) {
			return Errorf(Invalid, "Machine %s is not in a deployment state.", n.Hostname)
		}
		prefix, _ := preseed.PrefixByName(preseed.PrefixCurtinUserdata)
		d, err := s.previewPreseed(ctx, tx, n, prefix, "")
		if err == nil {
			err = d.Err
		}
		out = d.Content
		return err
	})
	return out, err
}

// previewPreseed renders a document as the caller may see it. distroSeries is what would be deployed; empty: what the machine has.
func (s *Service) previewPreseed(ctx context.Context, tx *storage.Tx, n *storage.Node, prefix preseed.Prefix, distroSeries string) (PreseedDocument, error) {
	j, err := s.previewJob(ctx, tx, n, prefix, distroSeries)
	if err != nil {
		return PreseedDocument{}, err
	}
	return s.renderPreseed(tx, j)
}

// previewJob is the job of a document with nothing in it that the caller may not see.
func (s *Service) previewJob(ctx context.Context, tx *storage.Tx, n *storage.Node, prefix preseed.Prefix, distroSeries string) (j preseedJob, err error) {
	j = preseedJob{prefix: prefix, node: n, base: rackBase(n), token: redactedToken, secret: mayNode(ActorFrom(ctx), n, permAdminRead)}
	if prefix.Name == preseed.PrefixEnlist {
		j.node = nil // whoever enlists is nobody yet
		return j, nil
	}
	if j.secret {
		t, err := tx.NodeToken(n.ID)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return j, err
		}
		if err == nil {
			j.token = t
		}
	}
	if j.image, err = s.imageToPreview(tx, n, distroSeries); err != nil {
		return j, err
	}
	if prefix.Name == preseed.PrefixCurtin {
		j.installer, err = s.hasAutoinstall(tx, j)
	}
	return j, err
}

// imageToPreview is the image that a request names, else the machine's, else the default one if there is any.
func (s *Service) imageToPreview(tx *storage.Tx, n *storage.Node, distroSeries string) (*storage.Image, error) {
	if distroSeries == "" && n.Osystem != "" {
		return imageIfAny(tx, n)
	}
	image, err := s.deployImage(tx, n, DeployRequest{DistroSeries: distroSeries})
	if err != nil && distroSeries == "" {
		return nil, nil
	}
	return &image, err
}

// Preview renders a document for a machine as it is now.
func (s *Service) Preview(ctx context.Context, systemID, prefixName, distroSeries string) (d PreseedDocument, err error) {
	prefix, ok := preseed.PrefixByName(prefixName)
	if !ok {
		return d, FieldError("prefix", "There is no document %s: it is one of %s.", clip(prefixName), strings.Join(preseed.Prefixes(), ", "))
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		b, err := s.readMachine(ctx, tx, systemID)
		if err != nil {
			return err
		}
		d, err = s.previewPreseed(ctx, tx, &b.Node, prefix, distroSeries)
		return err
	})
	return d, err
}

// MachinePreseed is the cloud-config of the ephemeral environment that a machine boots, through the rack that base names. Whoever can ask gets
// the machine's credentials with it: that is how a machine gets them.
func (s *Service) MachinePreseed(ctx context.Context, systemID string, base func(*storage.Node) string) ([]byte, error) {
	n, token, err := s.MachineCredentials(ctx, systemID)
	if err != nil {
		return nil, err
	}
	name := preseed.PrefixCommissioning
	if n.Status == storage.StatusDeploying && !n.EphemeralDeploy {
		name = preseed.PrefixCurtin
	}
	prefix, _ := preseed.PrefixByName(name)
	var d PreseedDocument
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		j := preseedJob{prefix: prefix, node: &n, base: base(&n), token: token, secret: true}
		if name == preseed.PrefixCurtin {
			if j.image, err = imageIfAny(tx, &n); err != nil {
				return err
			}
			if j.installer, err = s.hasAutoinstall(tx, j); err != nil {
				return err
			}
		}
		d, err = s.renderPreseed(tx, j)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d.Content, s.preseedFailed(ctx, &n, d.Err)
}

// preseedFailed writes down why a machine did not get its document. It does not get the built-in one in its place: what the operator wanted
// of the machine may be what makes it safe.
func (s *Service) preseedFailed(ctx context.Context, n *storage.Node, failed error) error {
	if failed == nil {
		return nil
	}
	s.Log.Error("preseed not rendered", "system_id", n.SystemID, "error", failed)
	err := s.DB.Write(WithActor(ctx, SystemActor()), func(tx *storage.Tx) error {
		return s.event(tx, n, "NODE_STATUS_EVENT_FAILED", failed.Error())
	})
	return errors.Join(failed, err)
}

// EnlistPreseed is the cloud-config of a machine that nobody knows.
func (s *Service) EnlistPreseed(ctx context.Context, base string) ([]byte, error) {
	prefix, _ := preseed.PrefixByName(preseed.PrefixEnlist)
	var d PreseedDocument
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		d, err = s.renderPreseed(tx, preseedJob{prefix: prefix, base: base})
		return err
	})
	if err == nil && d.Err != nil {
		s.Log.Error("preseed not rendered", "prefix", prefix.Name, "error", d.Err)
		err = d.Err
	}
	return d.Content, err
}

// hasAutoinstall says whether operators want Ubuntu Server's installer for a machine: they have a template of that prefix for it.
func (s *Service) hasAutoinstall(tx *storage.Tx, j preseedJob) (bool, error) {
	if j.image == nil {
		return false, nil
	}
	j.prefix, _ = preseed.PrefixByName(preseed.PrefixAutoinstall)
	_, found, err := s.templateFor(tx, j, preseed.Names(j.prefix, j.target()))
	return found, err
}

// installJob is the job of a document for a machine that is being installed.
func (s *Service) installJob(tx *storage.Tx, nodeID int64, prefixName, base string) (j preseedJob, err error) {
	n, err := tx.NodeByID(nodeID)
	if err != nil {
		return j, err
	}
	j = preseedJob{node: &n, base: base, secret: true}
	j.prefix, _ = preseed.PrefixByName(prefixName)
	if n.Status != storage.StatusDeploying {
		return j, Errorf(NotFound, "Not Found")
	}
	if j.token, err = tx.NodeToken(n.ID); err != nil {
		return j, err
	}
	j.image, err = imageIfAny(tx, &n)
	return j, err
}

// InstallerUserData is the document of a machine that Ubuntu Server's installer installs; nil for one that the agent or curtin does.
func (s *Service) InstallerUserData(ctx context.Context, nodeID int64, base string) ([]byte, error) {
	var (
		d PreseedDocument
		n *storage.Node
	)
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		d, n = PreseedDocument{}, nil
		j, err := s.installJob(tx, nodeID, preseed.PrefixAutoinstall, base)
		if isKind(err, NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found, err := s.hasAutoinstall(tx, j)
		if err != nil || !found {
			return err
		}
		n = j.node
		d, err = s.renderPreseed(tx, j)
		return err
	})
	if err != nil || n == nil {
		return nil, err
	}
	return d.Content, s.preseedFailed(ctx, n, d.Err)
}

// CurtinInstall is the configuration by which curtin installs a machine, source and all.
func (s *Service) CurtinInstall(ctx context.Context, nodeID int64, base string) ([]byte, error) {
	var (
		d PreseedDocument
		n *storage.Node
	)
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		j, err := s.installJob(tx, nodeID, preseed.PrefixCurtinUserdata, base)
		if err != nil {
			return err
		}
		n = j.node
		d, err = s.renderPreseed(tx, j)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d.Content, s.preseedFailed(ctx, n, d.Err)
}

// checkPreseeds renders what operators' templates make of an installation while the user can still be told.
func (s *Service) checkPreseeds(tx *storage.Tx, n *storage.Node, image storage.Image) error {
	for _, p := range []string{preseed.PrefixCurtin, preseed.PrefixCurtinUserdata, preseed.PrefixAutoinstall} {
		j := preseedJob{node: n, image: &image, base: rackBase(n), token: redactedToken}
		j.prefix, _ = preseed.PrefixByName(p)
		if _, found, err := s.templateFor(tx, j, preseed.Names(j.prefix, j.target())); err != nil {
			return err
		} else if !found {
			continue // what is built in fails for images that the agent alone can install
		}
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

func isKind(err error, k Kind) bool {
	var rule *Error
	return errors.As(err, &rule) && rule.Kind == k
}
