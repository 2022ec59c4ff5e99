package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/preseed"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// MachineGetCurtinConfig answers curtin's configuration of a machine.
func (s *Server) MachineGetCurtinConfig(ctx context.Context, p api.MachineGetCurtinConfigParams) (oapi.Response, error) {
	doc, err := s.P.CurtinConfig(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, string(doc))
}

func renderPreseed(d provisioner.PreseedDocument) api.IngotPreseed {
	out := api.IngotPreseed{Prefix: d.Prefix.Name, Template: d.Template, LookedFor: listOf(d.LookedFor), Kind: string(d.Prefix.Kind), Valid: d.Err == nil,
		Warnings: listOf(d.Warnings), Content: string(d.Content)}
	if d.Err != nil {
		out.Error = d.Err.Error()
	}
	return out
}

// IngotMachinePreseedRead previews a document of a machine.
func (s *Server) IngotMachinePreseedRead(ctx context.Context, p api.IngotMachinePreseedReadParams) (oapi.Response, error) {
	d, err := s.P.Preview(ctx, p.SystemID, orDefault(p.Prefix, preseed.PrefixCurtinUserdata), orDefault(p.DistroSeries, ""))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPreseed(d))
}

func renderPreseedTemplate(t storage.PreseedTemplate) api.IngotPreseedTemplate {
	out := api.IngotPreseedTemplate{Name: t.Name, Size: int64(len(t.Content)), Created: api.T1(t.Created), Updated: api.T1(t.Updated)}
	if p, err := preseed.PrefixOf(t.Name); err == nil { // the store holds no others
		out.Prefix, out.Kind = p.Name, string(p.Kind)
	}
	return out
}

func onePreseedTemplate(t storage.PreseedTemplate, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	out := renderPreseedTemplate(t)
	out.Content = &t.Content
	return oapi.JSON(http.StatusOK, out)
}

// IngotPreseedTemplatesList lists the templates.
func (s *Server) IngotPreseedTemplatesList(ctx context.Context, _ api.IngotPreseedTemplatesListParams) (oapi.Response, error) {
	list, err := s.P.PreseedTemplates(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderPreseedTemplate))
}

// IngotPreseedTemplateRead answers a template.
func (s *Server) IngotPreseedTemplateRead(ctx context.Context, p api.IngotPreseedTemplateReadParams) (oapi.Response, error) {
	return onePreseedTemplate(s.P.PreseedTemplate(ctx, p.Name))
}

// IngotPreseedTemplateUpdate creates or replaces a template.
func (s *Server) IngotPreseedTemplateUpdate(ctx context.Context, p api.IngotPreseedTemplateUpdateParams) (oapi.Response, error) {
	return onePreseedTemplate(s.P.SavePreseedTemplate(ctx, p.Name, p.Content))
}

// IngotPreseedTemplateDelete removes a template.
func (s *Server) IngotPreseedTemplateDelete(ctx context.Context, p api.IngotPreseedTemplateDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeletePreseedTemplate(ctx, p.Name))
}

// IngotPreseedTemplateValidate tries a template.
func (s *Server) IngotPreseedTemplateValidate(ctx context.Context, p api.IngotPreseedTemplateValidateParams) (oapi.Response, error) {
	d, err := s.P.TryPreseedTemplate(ctx, p.Name, p.Content, orDefault(p.SystemID, ""), orDefault(p.DistroSeries, ""))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPreseed(d))
}
