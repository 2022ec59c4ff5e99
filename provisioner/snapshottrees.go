package provisioner

import (
	"net/url"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

// nodeKickstart is the path and query of the kickstart of a machine.
func nodeKickstart(systemID string) string {
	return metadataPath + "latest/by-id/" + systemID + "/?op=get_kickstart"
}

// loadTrees finds the installers of mirror trees. A series whose newest image is another has none.
func (b *snapshotBuilder) loadTrees(proxy string) error {
	b.trees = map[string]api.BootImage{}
	if u, err := url.Parse(proxy); err != nil || u.User != nil {
		proxy = "" // boot configurations are everybody's to read: a proxy's password is not in them
	}
	trees, err := b.tx.InstallTrees()
	if err != nil || len(trees) == 0 {
		return err
	}
	files, err := b.tx.ImageFiles()
	if err != nil {
		return err
	}
	images := map[string]map[string]string{} // name and architecture → file type → path
	for _, f := range files {
		arch, sub, _ := strings.Cut(f.Architecture, "/")
		k := f.Name + " " + arch
		if images[k] == nil {
			images[k] = map[string]string{}
		}
		osystem, series, _ := strings.Cut(f.Name, "/")
		images[k][f.Filetype] = strings.Join([]string{f.SHA256, osystem, arch, sub, series, f.Label, f.Filename}, "/")
	}
	for _, t := range trees {
		osystem, series, _ := strings.Cut(t.Name, "/")
		k := t.Name + " " + t.Architecture
		f := images[k]
		if f[treeFile] == "" || f["boot-kernel"] == "" || f["boot-initrd"] == "" {
			continue
		}
		b.trees[k] = api.BootImage{Environment: api.EnvironmentKickstart, OSystem: osystem, Series: series, Kernel: f["boot-kernel"], Initrd: f["boot-initrd"], Tree: t.URL, Proxy: proxy}
	}
	return nil
}

// snapshotNames are the names of each node's physical interfaces with their MAC addresses, NAME:MAC.
func snapshotNames(nics []storage.SnapshotInterface) map[int64][]string {
	out := map[int64][]string{}
	seen := map[int64]bool{}
	for _, i := range nics {
		if i.Type == nicPhysical && !seen[i.ID] && i.Name != "" && i.MAC != "" {
			seen[i.ID] = true
			out[i.NodeID] = append(out[i.NodeID], i.Name+":"+strings.ToLower(i.MAC))
		}
	}
	return out
}
