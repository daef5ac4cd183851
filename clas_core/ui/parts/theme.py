"""How the page looks: one theme, one style sheet, fonts that are on the reader's machine."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, Color, sizes

# Noto and the systems' own faces for Thai, Devanagari, Arabic and Han; nothing is fetched.
FONTS = (
    "Inter",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans",
    "Noto Sans Thai",
    "Noto Sans Devanagari",
    "Noto Sans Arabic",
    "Noto Naskh Arabic",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Microsoft YaHei",
    "sans-serif",
)
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Noto Sans Mono", "monospace")

BLUE = Color(
    "#eef6fb", "#d8eaf5", "#b0d4ea", "#7fb9dc", "#3f98ca",
    "#0072b2", "#00629a", "#00507e", "#004064", "#00324f", "#002338", name="clas-blue",
)  # fmt: skip
INK = Color(
    "#fafaf9", "#f4f4f2", "#e6e6e3", "#d2d2ce", "#a3a39e",
    "#6f6f6a", "#52524e", "#3b3b38", "#262624", "#1a1a19", "#111110", name="clas-ink",
)  # fmt: skip

CSS = (Path(__file__).parent / "static" / "studio.css").read_text("utf-8")


def make_theme() -> Base:
    """The page's colours, fonts and sizes, for both the light and the dark page."""
    theme = Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=INK,
        text_size=sizes.text_md,
        radius_size=sizes.radius_md,
        font=FONTS,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="#f6f6f3",
        body_background_fill_dark="#141413",
        body_text_color="#1d1d1b",
        body_text_color_dark="#ececea",
        body_text_color_subdued="#5f5f5a",
        body_text_color_subdued_dark="#a9a9a3",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="600",
        block_title_text_size="*text_sm",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_info_text_color="*body_text_color_subdued",
        block_info_text_color_dark="*body_text_color_subdued",
        border_color_primary="#dcdcd7",
        border_color_primary_dark="#383835",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1d1d1b",
        input_border_color="#c9c9c3",
        input_border_color_dark="#454541",
        input_border_width="1px",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="#2a8cc7",
        button_primary_background_fill_hover_dark="#3f9bd3",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0b0b0a",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#262624",
        button_secondary_border_color="#c9c9c3",
        button_secondary_border_color_dark="#454541",
        layout_gap="16px",
        slider_color="*primary_500",
        slider_color_dark="#2a8cc7",
    )
