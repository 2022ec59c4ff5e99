package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// TagsList answers all tags.
func (s *Server) TagsList(ctx context.Context, _ api.TagsListParams) (oapi.Response, error) {
	tags, err := s.P.Tags(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(tags, renderTag))
}

// TagsCreate makes a tag.
func (s *Server) TagsCreate(ctx context.Context, p api.TagsCreateParams) (oapi.Response, error) {
	t, err := s.P.CreateTag(ctx, provisioner.TagInput{Name: &p.Name, Comment: p.Comment, Definition: p.Definition, KernelOpts: p.KernelOpts})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderTag(t))
}

// TagRead answers a tag.
func (s *Server) TagRead(ctx context.Context, p api.TagReadParams) (oapi.Response, error) {
	t, err := s.P.Tag(ctx, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderTag(t))
}

// TagUpdate changes a tag.
func (s *Server) TagUpdate(ctx context.Context, p api.TagUpdateParams) (oapi.Response, error) {
	t, err := s.P.UpdateTag(ctx, p.Name, provisioner.TagInput{Name: p.NewName, Comment: p.Comment, Definition: p.Definition, KernelOpts: p.KernelOpts})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderTag(t))
}

// TagDelete removes a tag.
func (s *Server) TagDelete(ctx context.Context, p api.TagDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteTag(ctx, p.Name); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// TagRebuild answers at once: tags without a definition keep their machines.
func (s *Server) TagRebuild(ctx context.Context, p api.TagRebuildParams) (oapi.Response, error) {
	t, err := s.P.RebuildTag(ctx, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.TagRebuild{Rebuilding: t.Name})
}

// TagUpdateNodes gives a tag to nodes and takes it from others.
func (s *Server) TagUpdateNodes(ctx context.Context, p api.TagUpdateNodesParams) (oapi.Response, error) {
	added, removed, err := s.P.UpdateTagNodes(ctx, p.Name, p.Add, p.Remove, p.Definition)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.TagChange{Added: added, Removed: removed})
}

// tagged loads the nodes of some types that have a tag and that the caller may see. An unknown tag is 404, not an empty list.
func (s *Server) tagged(ctx context.Context, tag string, types ...int64) (provisioner.Pages, error) {
	if _, err := s.P.Tag(ctx, tag); err != nil {
		return nil, err
	}
	return s.P.MachinePages(ctx, types, []provisioner.Pair{{Name: "tags", Values: []string{tag}}}), nil
}

// TagMachines answers the machines that have a tag.
func (s *Server) TagMachines(ctx context.Context, p api.TagMachinesParams) (oapi.Response, error) {
	list, err := s.tagged(ctx, p.Name, storage.NodeMachine)
	if err != nil {
		return oapi.Response{}, err
	}
	return listed(list, renderMachines)
}

// TagNodes answers the nodes of all types that have a tag, each as what it is.
func (s *Server) TagNodes(ctx context.Context, p api.TagNodesParams) (oapi.Response, error) {
	list, err := s.tagged(ctx, p.Name, storage.NodeMachine, storage.NodeDevice, storage.NodeRack, storage.NodeRegion, storage.NodeRegionRack)
	if err != nil {
		return oapi.Response{}, err
	}
	render, err := s.nodeRenderer(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return listed(list, rendered(render))
}

// TagDevices answers the devices that have a tag.
func (s *Server) TagDevices(ctx context.Context, p api.TagDevicesParams) (oapi.Response, error) {
	list, err := s.tagged(ctx, p.Name, storage.NodeDevice)
	if err != nil {
		return oapi.Response{}, err
	}
	return listed(list, rendered(renderDevice))
}

// TagRackControllers answers the racks that have a tag: administrators see them, users see none.
func (s *Server) TagRackControllers(ctx context.Context, p api.TagRackControllersParams) (oapi.Response, error) {
	return s.taggedControllers(ctx, p.Name, storage.NodeRack, storage.NodeRegionRack)
}

// TagRegionControllers answers the regions that have a tag: administrators see them, users see none.
func (s *Server) TagRegionControllers(ctx context.Context, p api.TagRegionControllersParams) (oapi.Response, error) {
	return s.taggedControllers(ctx, p.Name, storage.NodeRegion, storage.NodeRegionRack)
}

func (s *Server) taggedControllers(ctx context.Context, tag string, types ...int64) (oapi.Response, error) {
	list, err := s.tagged(ctx, tag, types...)
	if err != nil {
		return oapi.Response{}, err
	}
	if !provisioner.ActorFrom(ctx).Can("can_view_controllers") {
		list = provisioner.Concat()
	}
	render, err := s.nodeRenderer(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return listed(list, rendered(render))
}
