<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ header[0] }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="bids-wmh-uad, with NiReports">
<title>{{ title | e }}</title>
<style>
{% include "style.css" %}
</style>
</head>
<body>
<nav>
<span class="subject">{{ title | e }}</span>
{% for section in sections %}
<a href="#{{ section.name }}">{{ section.name }}</a>
{% if section.isnested %}
{% for item in section.reportlets if item.title %}
<a href="#{{ item.name }}"><small>{{ item.title }}</small></a>
{% endfor %}
{% endif %}
{% endfor %}
</nav>
<main>
{% for section in sections %}
<section id="{{ section.name }}">
<h1>{{ section.name }}</h1>
{% for item in section.reportlets %}
<div class="reportlet-group" id="{{ item.name }}">
{% if item.title %}<h2>{{ item.title }}</h2>{% endif %}
{% if item.subtitle %}<h3>{{ item.subtitle }}</h3>{% endif %}
{% for content, caption in item.components %}
{% if caption %}<p class="caption">{{ caption }}</p>{% endif %}
{{ content }}
{% endfor %}
</div>
{% endfor %}
</section>
{% endfor %}
</main>
{{ header[1] }}
</body>
</html>
