//! `GET /`: one page that reads the public interface, as any client can.

use axum::response::Html;

#[utoipa::path(get, path = "/", tag = "operations", responses((status = 200, description = "The dashboard", body = String)))]
pub async fn show_dashboard() -> Html<&'static str> {
    Html(include_str!("dashboard.html"))
}
