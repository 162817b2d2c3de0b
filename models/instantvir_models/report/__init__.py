"""A page that shows what was measured or restored: one HTML file that asks nobody for anything.

What is on a page is data (`page`), pictures of it are small (`strips`), and one template with its
script and style (`page.js`, `page.css`) shows every page. Charts are drawn by Chart.js, in `vendor/`.
"""
