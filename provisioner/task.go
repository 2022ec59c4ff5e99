package provisioner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// planContext is what a plan needs and the store does not hold: the address by which the machine reaches the metadata service.
type planContext struct {
	MetadataURL string // ends in /MAAS/metadata/
	Token       storage.NodeToken
}

const tokenLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func randomToken(n int) string {
	b := make([]byte, n)
	out := make([]byte, 0, n)
	for len(out) < n {
		_, _ = rand.Read(b) // does not fail
		for _, c := range b {
			// 248 is a multiple of the 62 letters: what is above would favour the first ones.
			if c < 248 && len(out) < n {
				out = append(out, tokenLetters[int(c)%len(tokenLetters)])
			}
		}
	}
	return string(out)
}

// nodeToken returns a machine's own credentials, making them when it has none.
func (s *Service) nodeToken(tx *storage.Tx, nodeID int64) (storage.NodeToken, error) {
	t, err := tx.NodeToken(nodeID)
	if !errors.Is(err, storage.ErrNotFound) {
		return t, err
	}
	t = storage.NodeToken{NodeID: nodeID, ConsumerKey: randomToken(18), TokenKey: randomToken(18), TokenSecret: randomToken(32)}
	return t, tx.InsertNodeToken(&t)
}

// MachineCredentials returns a node with its credentials, which are made when it has none. It is how a preseed is rendered: anonymous by
// MAAS's design, so whoever serves it must reach machines only.
func (s *Service) MachineCredentials(ctx context.Context, systemID string) (storage.Node, storage.NodeToken, error) {
	var (
		n storage.Node
		t storage.NodeToken
	)
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if n, err = tx.Node(systemID); err != nil {
			return err
		}
		t, err = tx.NodeToken(n.ID)
		return err
	})
	if !errors.Is(err, storage.ErrNotFound) || n.ID == 0 {
		return n, t, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) (err error) {
		if n, err = tx.LockNodeBySystemID(systemID); err != nil {
			return err
		}
		t, err = s.nodeToken(tx, n.ID)
		return err
	})
	return n, t, err
}

// NodeByToken finds the machine that the credentials with a token key belong to.
func (s *Service) NodeByToken(ctx context.Context, tokenKey string) (n storage.Node, t storage.NodeToken, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, t, err = tx.NodeByToken(tokenKey)
		return err
	})
	return n, t, err
}

// Task tells the agent on a machine what this boot is for, by the machine's status.
func (s *Service) Task(ctx context.Context, nodeID int64, metadataURL string) (api.Task, error) {
	var t api.Task
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.NodeByID(nodeID)
		if err != nil {
			return err
		}
		t = api.Task{SystemID: n.SystemID, Hostname: n.Hostname, Then: "poweroff"}
		switch n.Status {
		case storage.StatusCommissioning, storage.StatusTesting:
			if t.Step = api.TaskCommission; n.Status == storage.StatusTesting {
				t.Step = api.TaskTest
				if n.PreviousStatus == storage.StatusDeployed { // back to the system that it interrupted
					t.Then = "reboot"
				}
			}
			if hasFlag(&n, flagEnableSSH) {
				t.Then = "stay"
			}
		case storage.StatusDeploying, storage.StatusDeployed:
			switch {
			case n.EphemeralDeploy: // a machine that is deployed to memory is so anew at each boot
			case n.Status == storage.StatusDeployed:
				t.Step = api.TaskPowerOff
				return nil
			case !n.Netboot:
				t.Step, t.Then = api.TaskPowerOff, "reboot" // it is installed: the disk is next
				return nil
			}
			t.Step, t.Then = api.TaskInstall, "reboot"
			token, err := tx.NodeToken(n.ID)
			if err != nil {
				return err
			}
			image, err := s.imageOf(tx, &n)
			if err != nil {
				return err
			}
			if IsTree(image) {
				return Errorf(Conflict, "The machine %s is installed by %s's own installer from a mirror tree, not by the agent.", n.SystemID, image.Name)
			}
			plan, err := s.installPlan(tx, &n, image, planContext{metadataURL, token})
			if err != nil {
				return err
			}
			t.Install = &plan
		case storage.StatusDiskErasing:
			t.Step = api.TaskErase
			disks, err := tx.BlockDevices(n.ID)
			if err != nil {
				return err
			}
			t.Erase = erasePlan(n.Erase, disks)
		case storage.StatusEnteringRescueMode, storage.StatusRescueMode:
			t.Step, t.Then = api.TaskRescue, "stay"
		default:
			t.Step = api.TaskPowerOff
		}
		return nil
	})
	return t, err
}

// imageOf is the image that a machine is being deployed with.
func (s *Service) imageOf(tx *storage.Tx, n *storage.Node) (storage.Image, error) {
	images, err := tx.RootImages()
	if err != nil {
		return storage.Image{}, err
	}
	name := n.Osystem + "/" + n.DistroSeries
	image, ok, _ := resolveImage(images, n.Architecture, name, "", "")
	if !ok {
		return image, fmt.Errorf("the image %s for %s is gone", name, n.Architecture)
	}
	return image, nil
}

func diskID(d *storage.BlockDevice) api.DiskID {
	id := api.DiskID{Name: d.Name, Size: d.Size}
	set := func(dst *string, src *string) {
		if src != nil {
			*dst = *src
		}
	}
	set(&id.Serial, d.Serial)
	set(&id.Model, d.Model)
	set(&id.Path, d.IDPath)
	return id
}

// ImagePath is the path of an image's file below /images/ on a rack.
func ImagePath(m storage.Image) string {
	osystem, series, _ := strings.Cut(m.Name, "/")
	arch, sub, _ := strings.Cut(m.Architecture, "/")
	return path.Join(m.SHA256, osystem, arch, sub, series, m.Label, m.Filename)
}

// targetURL is the metadata service as a machine's installed system reaches it, of the one as its installer does.
func (s *Service) targetURL(tx *storage.Tx, b *storage.Bundle, metadata string) (string, error) {
	racks, err := s.racksByNearness(tx, metadata)
	return reachableURL(b, racks, metadata), err
}

// installPlan renders the installation of an image on a machine.
func (s *Service) installPlan(tx *storage.Tx, n *storage.Node, image storage.Image, pc planContext) (api.InstallPlan, error) {
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return api.InstallPlan{}, err
	}
	arch, _, _ := strings.Cut(n.Architecture, "/")
	in := layout.Input{Firmware: firmwareOf(n), Arch: arch, SystemID: n.SystemID, Hostname: n.Hostname, MetadataURL: pc.MetadataURL,
		Credentials: layout.Credentials{ConsumerKey: pc.Token.ConsumerKey, TokenKey: pc.Token.TokenKey, TokenSecret: pc.Token.TokenSecret},
		Image:       api.ImageSource{Path: ImagePath(image), SHA256: image.SHA256, Size: image.Size, Type: image.Filetype}}
	in.Memory, in.WholeDisk = n.EphemeralDeploy, WholeDisk(image)
	if d := b.Cat.Domains[n.DomainID]; d != nil {
		in.Domain, in.Search = d.Name, []string{d.Name}
	}
	if in.MetadataURL, err = s.targetURL(tx, b, pc.MetadataURL); err != nil {
		return api.InstallPlan{}, err
	}
	in.Disks, in.Storage = planDisks(b), planStorage(b)
	upstream, err := s.settingText(tx, "upstream_dns", "")
	if err != nil {
		return api.InstallPlan{}, err
	}
	routes, err := tx.StaticRoutes()
	if err != nil {
		return api.InstallPlan{}, err
	}
	in.NICs = layoutNICs(b, routes, strings.Fields(strings.ReplaceAll(upstream, ",", " ")))
	global, err := s.settingText(tx, "kernel_opts", "")
	if err != nil {
		return api.InstallPlan{}, err
	}
	opts, err := tx.NodeKernelOpts(n.ID)
	if err != nil {
		return api.InstallPlan{}, err
	}
	in.KernelOpts = strings.TrimSpace(strings.Join(append([]string{global}, opts...), " "))
	plan, err := layout.Plan(in)
	if err != nil {
		return plan, err
	}
	plan.OSystem, plan.Series, _ = strings.Cut(image.Name, "/")
	plan.BaseImage = extraString(image.Extra, "base_image")
	if plan.KernelPackage, err = kernelPackage(tx, n); err != nil {
		return plan, err
	}
	if !in.Memory && !in.WholeDisk {
		plan.SwapSize = swapFile(b, plan.OSystem)
		if plan.KernelPackage, err = kernelPackage(tx, n); err != nil {
			return plan, err
		}
	}
	if plan.OSystem == "windows" {
		if plan.Seed, err = s.windowsSeed(tx, n, image, planContext{in.MetadataURL, pc.Token}); err != nil {
			return plan, err
		}
	}
	plan.Proxy, err = s.machineProxy(tx)
	return plan, err
}

// WholeDisk says whether an image is that of a whole disk, with partitions of its own.
func WholeDisk(image storage.Image) bool { return strings.HasPrefix(image.Filetype, "root-dd") }

// swapFile is the size of the swap file that a system gets: the machine's own, none beside swap space on a device, and nil where the
// installer decides. Custom images have their own ideas of swap.
func swapFile(b *storage.Bundle, osystem string) *int64 {
	if osystem == "custom" {
		return nil
	}
	if b.Node.SwapSize != nil {
		return b.Node.SwapSize
	}
	if slices.ContainsFunc(filesystemsOf(b), func(m mountedFS) bool { return m.fs.Fstype == "swap" }) {
		return new(int64)
	}
	return nil
}

// machineProxy is the proxy through which machines fetch packages; empty: none.
func (s *Service) machineProxy(tx *storage.Tx) (string, error) {
	on, err := s.settingBool(tx, "enable_http_proxy", true)
	if err != nil || !on {
		return "", err
	}
	return s.settingText(tx, "http_proxy", "")
}

// erasePlan says which disks to erase, and how.
func erasePlan(mode string, disks []storage.BlockDevice) *api.ErasePlan {
	ids := []api.DiskID{}
	for _, d := range disks {
		if d.Type == "physical" {
			ids = append(ids, diskID(&d))
		}
	}
	return &api.ErasePlan{Mode: mode, Disks: layout.Identities(ids)}
}

func layoutPartition(p *storage.PartitionBundle) layout.Partition {
	out := layout.Partition{Number: int(p.Number), Size: p.Size, UUID: p.UUID, Flag: p.Flag, Bootable: p.Bootable}
	if f := p.Filesystem; f != nil {
		out.FSType = f.Fstype
		out.FSUUID, out.Label, out.MountPoint, out.Options = deref(f.UUID, ""), deref(f.Label, ""), deref(f.MountPoint, ""), deref(f.MountOptions, "")
		if fat := f.Fstype == "fat32" || f.Fstype == "vfat"; fat && !layout.IsVolumeID(out.FSUUID) {
			out.FSUUID = layout.VolumeID(out.FSUUID) // FAT has no room for a UUID
		}
	}
	return out
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Identity is what the metadata service says of a machine.
type Identity struct {
	FQDN    string
	SSHKeys []string // of the owner
	// Certificates are the owner's, in PEM: Windows lets in who shows one of them.
	Certificates []string
	HideKeys     bool // from the listing: commissioning without enable_ssh
	NTP          []string
	Ephemeral    bool // it runs one of the ephemeral environments
	// VCenter are the settings by which an ESXi registers itself; empty: it does not.
	VCenter map[string]string
	// Sync is how often the installed system reports its hardware; 0: never.
	Sync time.Duration
}

// MachineIdentity reads what a machine may know of itself.
func (s *Service) MachineIdentity(ctx context.Context, nodeID int64) (Identity, error) {
	var id Identity
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.NodeByID(nodeID)
		if err != nil {
			return err
		}
		id.FQDN = n.Hostname
		if d, err := tx.Domain(n.DomainID); err == nil && d.Name != "" {
			id.FQDN += "." + d.Name
		}
		if n.OwnerID != nil {
			if id.SSHKeys, err = tx.SSHKeysOf(*n.OwnerID); err != nil {
				return err
			}
			certificates, err := tx.SSLKeys(*n.OwnerID)
			if err != nil {
				return err
			}
			for _, c := range certificates {
				id.Certificates = append(id.Certificates, c.Key)
			}
		}
		// A system in memory is the machine's own: its network is what the plan says.
		id.Ephemeral = !in(n.Status, storage.StatusDeployed) && (n.Status != storage.StatusDeploying || n.Netboot && !n.EphemeralDeploy)
		id.HideKeys = in(n.Status, storage.StatusCommissioning, storage.StatusTesting) && !hasFlag(&n, flagEnableSSH)
		if err := s.deployedIdentity(tx, &n, &id); err != nil {
			return err
		}
		ntp, err := s.settingText(tx, "ntp_servers", "")
		id.NTP = strings.FieldsFunc(ntp, func(r rune) bool { return r == ',' || r == ' ' })
		return err
	})
	return id, err
}
